"""What the operator asked for: TOML files read, checked and turned into immutable values.

``model`` is the shape, ``values`` the notations inside it, ``load`` the way from files to a ``Config``.
``source`` reads and merges files, ``positions`` knows on which line a key stands, ``crosscheck`` looks at
several keys at once, ``explain`` turns what was found into sentences. ``show`` and ``starter`` write TOML.
"""

from __future__ import annotations
