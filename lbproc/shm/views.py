"""The table as each kind of process sees it; one import for all of them.

Each view can change only what its process owns: the supervisor's ``supervisor_view``, a worker's
``worker_view``, the controller's ``controller_view``; ``reader`` changes nothing.
"""

from __future__ import annotations

from lbproc.shm.cells import BackendCounter, ProcessState, Refusal, Role, WorkerCounter
from lbproc.shm.controller_view import ControllerView
from lbproc.shm.reader import ColumnState, ListenerCounts, Reader, RowChecks, RowStatus
from lbproc.shm.repair import RepairReport
from lbproc.shm.supervisor_view import SupervisorView
from lbproc.shm.worker_view import WorkerView

__all__ = [
    "BackendCounter",
    "ColumnState",
    "ControllerView",
    "ListenerCounts",
    "ProcessState",
    "Reader",
    "Refusal",
    "RepairReport",
    "Role",
    "RowChecks",
    "RowStatus",
    "SupervisorView",
    "WorkerCounter",
    "WorkerView",
]
