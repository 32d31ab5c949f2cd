"""Carries out what operators command of backends: admin states, weights, coming and going.

Owns those who wait for the end of a drain. What a command means, and what is refused, is decided by
``core.control.steering``; here it is done to the table and to the membership, and published, so that the next
pick of every worker obeys it.

When a drain is over
--------------------
Nothing is in flight, and nothing can begin any more: first every worker says that it follows the publication
that came with the command, and then the total is 0. The total alone would not do, because a worker may have
chosen the backend just before the command and take its place just after. A worker that has said nothing yet
has not picked yet, and its first pick obeys.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

from lbproc.config.wording import count, quote
from lbproc.core.control.messages import (
    AdminRequest,
    BackendAddRequest,
    BackendRemoveRequest,
    Progress,
    Reply,
    SteeringRequest,
    WeightRequest,
)
from lbproc.core.control.overrides import Member, Overrides
from lbproc.core.control.steering import (
    SteeringRefusedError,
    availability,
    find_backend,
    find_pool,
    read_state,
    warnings,
    with_backend,
    with_weight,
    without_backend,
)
from lbproc.core.pool import status_of
from lbproc.errors import CapacityError
from lbproc.shm.views import Role, SupervisorView
from lbproc.supervisor.control import Respond
from lbproc.supervisor.publishing import Publishing
from lbproc.telemetry.events import Event
from lbproc.telemetry.log import ErrorLog
from lbproc.types import Admin, Health, Row, Seconds

LOOK_EVERY: Seconds = 0.1
"""Between two looks at what is in flight, while somebody waits."""

TELL_EVERY: Seconds = 1.0
"""Between two messages to somebody who waits while nothing changes; also how he is found to have left."""


@dataclass(frozen=True, slots=True)
class _Standing:
    """How far a wait is; what `Progress` says.

    Args:
        in_flight: requests and tunnels.
        late_workers: that have not taken notice of the command yet.
        health: what keeps requests away, empty for nothing, where the backend is to take some; None where it
            is to take none.
    """

    in_flight: int
    late_workers: int
    health: str | None

    @property
    def is_reached(self) -> bool:
        return not self.late_workers and not (self.in_flight if self.health is None else self.health)

    def explain(self, title: str, waited: Seconds) -> str:
        """Why a wait was in vain."""
        span = f"{waited:.3g} s"
        if self.late_workers:
            return f"{count(self.late_workers, 'worker')} did not take notice of {quote(title)} in {span}"
        if self.health is None:
            left = count(self.in_flight, "request")
            return f"{quote(title)} still has {left} in flight after {span}; it gets no new ones"
        return f"{quote(title)} is still {self.health} after {span}; it takes requests as soon as it is up"


@dataclass(eq=False, slots=True)
class _Waiter:
    """Somebody who waits until a command has come true.

    Args:
        pool: of the backend.
        member: the backend, as it was when the command came.
        row: its row.
        goal: the admin state that was asked for; None: that it is gone.
        epoch: of the publication that came with the command.
        until: when it gives up.
        since: when the command came.
        body: of the reply, to be completed.
        respond: to him.
        told: what he was told last.
        tell_at: when he is told the same again.
    """

    pool: str
    member: Member
    row: Row
    goal: Admin | None
    epoch: int
    until: Seconds
    since: Seconds
    body: dict[str, object]
    respond: Respond
    told: _Standing | None = None
    tell_at: Seconds = 0.0

    @property
    def title(self) -> str:
        return f"{self.pool}/{self.member.name}"


class Steering:
    """Does what operators say.

    Args:
        view: of the table.
        log: for what was done.
        clock: monotonic time.
        publishing: has the membership in force.
    """

    __slots__ = ("_clock", "_log", "_look_at", "_publishing", "_view", "_waiters")

    def __init__(
        self,
        view: SupervisorView,
        log: ErrorLog,
        clock: Callable[[], Seconds],
        publishing: Publishing,
    ) -> None:
        self._view = view
        self._log = log
        self._clock = clock
        self._publishing = publishing
        self._waiters: list[_Waiter] = []
        self._look_at = math.inf

    def answer(self, request: SteeringRequest, respond: Respond) -> None:
        """Carries out one command, and answers now or, to whoever waits, later."""
        try:
            match request:
                case AdminRequest():
                    self._set_state(request, respond)
                case WeightRequest():
                    respond(Reply(ok=True, body=self._set_weight(request)))
                case BackendAddRequest():
                    respond(Reply(ok=True, body=self._add(request)))
                case BackendRemoveRequest():
                    self._remove(request, respond)
        except (SteeringRefusedError, CapacityError) as error:
            respond(Reply(ok=False, body=str(error)))

    def next_wakeup(self) -> Seconds:
        """When `look` is due; infinite while nobody waits."""
        return self._look_at

    def awaited(self) -> set[Row]:
        """The rows that somebody waits for; they may not become another's until he is answered."""
        return {waiter.row for waiter in self._waiters}

    def look(self) -> None:
        """Answers those whose wait is over. Call it when it is due."""
        now = self._clock()
        if not self._waiters:
            self._look_at = math.inf
            return
        self._look_at = now + LOOK_EVERY
        followed = self._view.reader.followed(Role.WORKER)
        for waiter in tuple(self._waiters):
            reply = self._judge(waiter, followed, now)
            if reply is not None:
                # First forgotten, then answered: the next request of the same client may come in between.
                self._waiters.remove(waiter)
                waiter.respond(reply)
            elif not self._tell(waiter, followed, now):
                self._waiters.remove(waiter)

    # Commands

    def _set_state(self, request: AdminRequest, respond: Respond) -> None:
        membership, pool = self._publishing.membership, request.pool
        state = read_state(request.state)
        member = find_backend(membership, pool, request.backend)
        row = membership.row(pool, member)
        epoch = self._change(membership.overrides.with_admin(pool, member.address, state))
        if state is not member.admin:
            self._write(
                Event.BACKEND_STATE, pool, member, state=state.name.lower(), was=member.admin.name.lower()
            )
        body = self._describe(pool, member, row) | {
            "admin": state.name.lower(),
            "was": member.admin.name.lower(),
        }
        self._wait_or_respond(request, respond, member, row, state, epoch, body)

    def _set_weight(self, request: WeightRequest) -> dict[str, object]:
        membership, pool = self._publishing.membership, request.pool
        member = find_backend(membership, pool, request.backend)
        self._change(with_weight(membership, pool, member, request.weight))
        after = find_backend(membership, pool, member.address)
        if after.config.weight != member.config.weight:
            self._write(
                Event.BACKEND_WEIGHT, pool, member, weight=after.config.weight, was=member.config.weight
            )
        return self._describe(pool, after, membership.row(pool, after)) | {
            "weight": after.config.weight,
            "was": member.config.weight,
        }

    def _add(self, request: BackendAddRequest) -> dict[str, object]:
        membership = self._publishing.membership
        pool = find_pool(membership, request.pool)
        overrides, address = with_backend(membership, pool, request.backend)
        self._change(overrides)
        member = find_backend(membership, pool, address)
        self._write(Event.BACKEND_ADDED, pool, member, address=address, weight=member.config.weight)
        return self._describe(pool, member, membership.row(pool, member)) | {"weight": member.config.weight}

    def _remove(self, request: BackendRemoveRequest, respond: Respond) -> None:
        membership, pool = self._publishing.membership, request.pool
        member = find_backend(membership, pool, request.backend)
        row = membership.row(pool, member)
        epoch = self._change(without_backend(membership, pool, member))
        self._write(Event.BACKEND_REMOVED, pool, member, address=member.address)
        self._wait_or_respond(request, respond, member, row, None, epoch, self._describe(pool, member, row))

    def _change(self, overrides: Overrides) -> int:
        """Puts overrides in force, or changes nothing.

        Raises:
            CapacityError: the table has no room.
        """
        membership = self._publishing.membership
        before = membership.overrides
        membership.override(overrides)
        try:
            return self._publishing.publish()
        except CapacityError:
            membership.override(before)
            raise

    def _write(self, event: Event, pool: str, member: Member, **fields: str | int) -> None:
        self._log.write(event, pool=pool, backend=member.name, **fields)

    def _describe(self, pool: str, member: Member, row: Row) -> dict[str, object]:
        membership = self._publishing.membership
        reader, members = self._view.reader, membership.members(pool)
        cells = [reader.status(membership.row(pool, one)) for one in members]
        statuses = [
            status_of((cell.health, cell.admin, cell.ejected), is_resolved=bool(membership.resolved(one)))
            for one, cell in zip(members, cells, strict=True)
        ]
        state = availability(members, statuses, membership.config.pools[pool].panic_threshold)
        return {
            "pool": pool,
            "backend": member.name,
            "address": member.address,
            "in_flight": reader.in_flight(row),
            "warnings": warnings(pool, statuses, state),
        }

    # Waiting

    def _wait_or_respond(
        self,
        request: AdminRequest | BackendRemoveRequest,
        respond: Respond,
        member: Member,
        row: Row,
        goal: Admin | None,
        epoch: int,
        body: dict[str, object],
    ) -> None:
        if not request.wait:
            respond(Reply(ok=True, body=body))
            return
        now = self._clock()
        until = now + request.timeout if request.timeout > 0 else math.inf
        self._waiters.append(_Waiter(request.pool, member, row, goal, epoch, until, now, body, respond))
        self._look_at = now  # and not from here: looking answers others, and so may bring in another request

    def _judge(self, waiter: _Waiter, followed: list[int], now: Seconds) -> Reply | None:
        """The answer to somebody whose wait is over; None: it is not."""
        if overtaken := self._overtaken(waiter):
            return Reply(ok=False, body=f"{waiter.title} {overtaken}; waiting no longer")
        standing = self._standing(waiter, followed)
        if standing.is_reached:
            done = {"in_flight": standing.in_flight, "waited_seconds": round(now - waiter.since, 3)}
            return Reply(ok=True, body=waiter.body | done)
        if now >= waiter.until:
            return Reply(ok=False, body=standing.explain(waiter.title, now - waiter.since))
        return None

    def _tell(self, waiter: _Waiter, followed: list[int], now: Seconds) -> bool:
        """Tells somebody how it stands, if that is news or long ago; returns whether he is still there."""
        standing = self._standing(waiter, followed)
        if standing == waiter.told and now < waiter.tell_at:
            return True
        waiter.told, waiter.tell_at = standing, now + TELL_EVERY
        return waiter.respond(Progress(body=asdict(standing)))

    def _standing(self, waiter: _Waiter, followed: list[int]) -> _Standing:
        late = sum(0 < epoch < waiter.epoch for epoch in followed)  # first: what they hold is counted then
        obstacle = None if waiter.goal is not Admin.READY else self._why_not_taking(waiter.row)
        return _Standing(self._view.reader.in_flight(waiter.row), late, obstacle)

    def _overtaken(self, waiter: _Waiter) -> str:
        """What a later command or reload has made of the one that is waited for; empty: nothing."""
        membership = self._publishing.membership
        exists = waiter.pool in membership.config.pools
        member = membership.find(waiter.pool, waiter.member.address) if exists else None
        if member is None or member.address != waiter.member.address:
            return "is no backend any more" if waiter.goal is Admin.READY else ""
        if waiter.goal is None:
            return "is a backend again"
        if member.admin is not waiter.goal and Admin.READY in {member.admin, waiter.goal}:
            return f"was put into {member.admin.name.lower()} meanwhile"
        return ""

    def _why_not_taking(self, row: Row) -> str:
        """What keeps requests from a backend that is ready; empty: nothing."""
        status = self._view.reader.status(row)
        if status.health not in {Health.UP, Health.STARTING}:
            return status.health.name.lower()
        return "ejected" if status.ejected else ""
