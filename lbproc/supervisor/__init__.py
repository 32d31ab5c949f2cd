"""The supervisor: the parent of all other processes, which owns the sockets and the table.

One thread, no event loop of trio, never a byte of a client. `lbproc.core.supervision` decides, the modules
here act: they wait, fork, reap, send, and open and close what belongs to the supervisor. `run` in
`lbproc.supervisor.start` is the only way in.
"""

from __future__ import annotations

from lbproc.supervisor.start import run

__all__ = ["run"]
