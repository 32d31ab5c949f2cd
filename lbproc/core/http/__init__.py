"""HTTP/1.1 without I/O: heads, framing, bodies, forwarding and replies, all from bytes that may be hostile.

Owns what is refused, what is changed and what is passed on. Sockets, time and the choice of a backend are
elsewhere. The path of a request: ``head_buffer`` cuts, ``head`` reads (``strict``, then the fields, then
h11), ``body`` follows the body through, ``render`` writes. Whatever must not go on raises ``Rejected``, and
``replies`` says so to the client.
"""

from __future__ import annotations
