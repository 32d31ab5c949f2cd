"""What a reload sees of the supervisor, and what it may change there by its commit."""

from __future__ import annotations

import selectors
from collections.abc import Callable
from dataclasses import dataclass

from lbproc.core.supervision import Supervision
from lbproc.core.supervision_events import Event as SupervisionEvent
from lbproc.shm.views import SupervisorView
from lbproc.supervisor.belongings import Belongings
from lbproc.supervisor.children import Children
from lbproc.supervisor.publishing import Publishing
from lbproc.types import Seconds


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a reload sees of the supervisor.

    Args:
        own: replaced by the commit, where the configuration says so.
        view: of the table.
        children: to talk to.
        supervision: to ask who is there.
        selector: whose keys carry a function that takes the ready events.
        release: closes, in a forked process, what is the supervisor's own.
        supervise: takes events of supervision.
        publishing: has the membership in force.
        clock: monotonic time.
    """

    own: Belongings
    view: SupervisorView
    children: Children
    supervision: Supervision
    selector: selectors.BaseSelector
    release: Callable[[], None]
    supervise: Callable[[SupervisionEvent], None]
    publishing: Publishing
    clock: Callable[[], Seconds]
