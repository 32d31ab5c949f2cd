"""A worker: one trio loop that accepts connections and serves them until it is told to finish.

``main`` wires the parts together and follows the supervisor, ``accepting`` takes connections from sockets and
inboxes, ``computing`` ends a worker that turns in circles. `run_worker` is the only way in.
"""

from __future__ import annotations

from lbproc.worker.main import run_worker

__all__ = ["run_worker"]
