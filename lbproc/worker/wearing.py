"""When a worker has served enough (``[runtime] max_requests``) and asks for a successor.

Owns the limit of one worker. It is drawn after the fork and is up to a tenth more or less than what is
configured, so that workers that started together are not replaced together. The table counts requests
anyway, so this costs a request nothing: it is looked at now and then, and the limit may be passed by what is
served in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbproc.shm.views import WorkerCounter

if TYPE_CHECKING:
    from random import Random

    from lbproc.shm.views import WorkerView

JITTER = 0.1


class Wear:
    """The wear of one worker.

    Args:
        view: counts its requests.
        random: made after the fork.
    """

    __slots__ = ("_born_with", "_factor", "_is_said", "_view")

    def __init__(self, view: WorkerView, random: Random) -> None:
        self._view = view
        self._born_with = view.counted(WorkerCounter.REQUESTS)
        self._factor = random.uniform(1 - JITTER, 1 + JITTER)
        self._is_said = False

    def is_reached(self, most: int | None) -> bool:
        """Whether it is time to ask for a successor; true once.

        Args:
            most: how many requests one worker is to serve at present; None: any number.
        """
        if most is None or self._is_said:
            return False
        served = self._view.counted(WorkerCounter.REQUESTS) - self._born_with
        self._is_said = served >= most * self._factor
        return self._is_said
