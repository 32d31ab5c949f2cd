"""The shared table: counts, health and limits that all processes read and change without locks.

``table`` makes and maps the segment, ``layout`` says where everything is, ``views`` is what each kind of
process may change, ``_atomics`` is the C extension under all of them. Knows nothing of sockets or balancing.
"""

from __future__ import annotations
