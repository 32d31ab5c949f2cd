"""Which heads are remembered whole, and how many: the bounds of the memos of plans and of answers.

Owns these bounds. A head is kept with whatever its sender put in, secrets among it. What it leaves behind
depends on the pieces it is made of more than on its bytes, since every piece is an object of some 40 bytes
and of a field three are kept. So both are bounded. The most that a full memo took, by shape of its heads
(tracemalloc, 23 November 2026, Python 3.11):

    heads of 2 KiB                     plans     answers
    8 fields                         4.0 MiB     3.9 MiB
    32 fields                        6.0 MiB     5.9 MiB
    32 fields, one long target       8.6 MiB
    100 fields, without this bound  11.7 MiB    11.6 MiB
    200 fields, without this bound              20.0 MiB
    650 options in ``Connection``,
    without this bound              29.7 MiB    29.6 MiB
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lbproc.core.http.head import RequestHead, ResponseHead

KNOWN_HEADS = 512
"""What the requests of a page or of a service repeat fits, many times over."""

KNOWN_HEAD_SIZE = 2048

KNOWN_HEAD_PIECES = 32
"""Fields of a head and options of its ``Connection``: browsers send 20 or less, proxies add ten."""


def is_memorable(head: RequestHead | ResponseHead) -> bool:
    """Whether a head is made of so few pieces that its memo may have it."""
    return len(head.headers) + len(head.connection_tokens) <= KNOWN_HEAD_PIECES
