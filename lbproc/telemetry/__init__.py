"""What lbproc tells about itself: the access log, the error log and its events.

Knows nothing of sockets, tables or balancing. Nothing here may block a worker: not a full disk, not a pipe
that nobody reads.
"""

from __future__ import annotations
