"""Runs the checks of all backends, and writes what follows from them into the table at once.

Owns the tasks, the counts and the standing of every check. ``core.health`` decides when is probed and what
follows; ``probe`` probes. There is one task for each check, which sleeps until its next probe is due.

Invariants:
- A check lives while its backend is published and its pool has ``[health]``. What becomes of a reload or a
  change of membership is decided by `Prober.follow`: a check that is still asked for keeps its standing and
  its counts, also when it is made in another way from now on.
- A backend that is new here begins with what the table says of it: so health outlives the controller, and
  checks that are added to a pool cost none of its backends.
- At most ``UNDER_WAY`` probes are under way at one time. Who finds no place waits in line, so the promise of
  ``core.health`` holds while not more than so many backends hang at the same time.
- Nothing a backend does ends this: what a probe may raise is caught where it is made.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Final, Protocol

import trio

from lbproc.config.model import Config
from lbproc.core.health import Check, CheckCounts, Standing, Subject, first_delays
from lbproc.health.probe import Outcome, Probe, run_probe
from lbproc.health.targets import Key, Member, Target, targets
from lbproc.net.tls.upstream import ClientContexts
from lbproc.telemetry.events import Event
from lbproc.telemetry.log import ErrorLog
from lbproc.types import Health, Liveness, Row, Seconds

UNDER_WAY: Final = 1000

RunProbe = Callable[[Probe], Awaitable[Outcome]]


class Cells(Protocol):
    """What the table holds of a backend's checks."""

    def health(self, row: Row) -> Health:
        """What is known already."""
        ...

    def liveness(self, row: Row) -> Liveness:
        """What is known already."""
        ...

    def health_age(self, row: Row) -> Seconds | None:
        """How long the health has been what it is; None: nobody knows."""
        ...

    def set_health(self, row: Row, health: Health) -> None:
        """Publishes."""
        ...

    def set_liveness(self, row: Row, liveness: Liveness) -> None:
        """Publishes."""
        ...

    def set_checked(self, row: Row) -> None:
        """Notes that there was a check now."""
        ...


class _Watch:
    """One check with its task."""

    __slots__ = ("check", "failed", "key", "passed", "reason", "scope", "seconds", "target")

    def __init__(self, key: Key, target: Target, check: Check) -> None:
        self.key = key
        self.target = target
        self.check = check
        self.scope = trio.CancelScope()
        self.passed = 0
        self.failed = 0
        self.seconds: Seconds = 0.0
        self.reason = ""

    def count(self, outcome: Outcome) -> None:
        self.seconds += outcome.seconds
        self.passed += outcome.passed is True
        self.failed += outcome.passed is False
        self.reason = outcome.reason or self.reason

    def counts(self) -> CheckCounts:
        member = self.target.member
        return CheckCounts(
            member.pool, member.name, self.key.subject, self.passed, self.failed, self.seconds, self.reason
        )


class Prober:
    """Checks what it is told to check, while it runs.

    Args:
        cells: the health cells of the table.
        log: for changes.
        chance: made in this process, after the fork.
        probe: probes once.
    """

    __slots__ = (
        "_cells",
        "_chance",
        "_contexts",
        "_log",
        "_nursery",
        "_places",
        "_previewed",
        "_probe",
        "_settled",
        "_unanswered",
        "_watches",
    )  # fmt: skip

    def __init__(
        self, cells: Cells, log: ErrorLog, chance: random.Random, probe: RunProbe = run_probe
    ) -> None:
        self._cells = cells
        self._log = log
        self._chance = chance
        self._probe = probe
        self._contexts = ClientContexts()
        self._watches: dict[Key, _Watch] = {}
        self._previewed: set[Key] = set()
        self._unanswered: set[Key] = set()
        self._settled = trio.Event()
        self._places = trio.CapacityLimiter(UNDER_WAY)
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Checks for ever; started when `follow` may be called."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def follow(self, config: Config, members: Iterable[Member]) -> None:
        """Checks these backends from now on, as the configuration says, and no others."""
        published = list(members)
        asked = targets(config, published, self._contexts)
        for key, watch in list(self._watches.items()):
            if key in asked:
                is_gone = asked[key].member.row != watch.target.member.row
            else:
                is_gone = key not in self._previewed
            if is_gone:
                self._drop(key)
        new = [(key, target) for key, target in asked.items() if key not in self._watches]
        for key in asked.keys() & self._watches.keys():
            self._adjust(self._watches[key], asked[key])
        self._begin(new)
        for member in published:
            if member.pool in config.pools:
                self._release(member, asked.keys())
        self._look_if_settled()

    def preview(self, config: Config, members: Iterable[Member]) -> None:
        """Begins with those of these backends that wait for a first check; they may be followed soon.

        They are checked until `end_preview`.
        """
        asked = targets(config, members, self._contexts)
        waiting = [
            (key, target)
            for key, target in asked.items()
            if key not in self._watches and self._cells.health(target.member.row) is Health.CHECKING
        ]
        self._previewed.update(key for key, _ in waiting)
        self._begin(waiting)

    def end_preview(self) -> None:
        """Lets the next `follow` decide about what was previewed."""
        self._previewed.clear()

    @property
    def is_previewing(self) -> bool:
        """Whether anything is checked only because it may be followed soon."""
        return bool(self._previewed)

    async def settle(self, within: Seconds) -> None:
        """Waits until every backend that waits for its first check has had one, but not for longer."""
        with trio.move_on_after(within):
            while self._unanswered:
                if self._settled.is_set():  # else somebody waits for it already
                    self._settled = trio.Event()
                await self._settled.wait()

    def counts(self) -> list[CheckCounts]:
        """What the checks of each backend came to."""
        return [watch.counts() for watch in self._watches.values()]

    # What is checked

    def _begin(self, new: list[tuple[Key, Target]]) -> None:
        standings = [self._standing(key, target) for key, target in new]
        cadences = [target.cadence for _, target in new]
        spans = [(standing, cadence.interval) for standing, cadence in zip(standings, cadences, strict=True)]
        delays = first_delays(spans, self._chance.random)
        now = trio.current_time()
        for (key, target), standing, delay in zip(new, standings, delays, strict=True):
            watch = _Watch(key, target, Check(target.cadence, standing, now + delay))
            self._watches[key] = watch
            if key.subject is Subject.READINESS and standing is Standing.UNDECIDED:
                self._unanswered.add(key)
            self._start(watch)

    def _standing(self, key: Key, target: Target) -> Standing:
        """What the table says already."""
        if key.subject is Subject.LIVENESS:
            return _OF_LIVENESS[self._cells.liveness(target.member.row)]
        return _OF_HEALTH[self._cells.health(target.member.row)]

    def _adjust(self, watch: _Watch, target: Target) -> None:
        """Goes on with a check in the way that is asked for now."""
        before = watch.target
        watch.target = target
        if (before.probe, before.cadence) == (target.probe, target.cadence):
            return
        now = trio.current_time()
        watch.check.adopt(target.cadence, now)
        if not before.probe.addresses:
            watch.check.due_at = now  # its name is resolved at last
        watch.scope.cancel()
        watch.scope = trio.CancelScope()
        self._start(watch)

    def _start(self, watch: _Watch) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(self._watch, watch, watch.scope)

    def _drop(self, key: Key) -> None:
        self._watches.pop(key).scope.cancel()
        self._unanswered.discard(key)

    def _release(self, member: Member, asked: Collection[Key]) -> None:
        """A backend that nobody checks is up, and nobody knows whether it lives."""
        is_checked = Key(member.pool, member.address, Subject.READINESS) in asked
        if not is_checked and self._cells.health(member.row) is not Health.UP:
            self._publish(member, Health.UP, "no longer checked")
        if Key(member.pool, member.address, Subject.LIVENESS) not in asked:
            self._cells.set_liveness(member.row, Liveness.UNKNOWN)

    # How it is checked

    async def _watch(self, watch: _Watch, scope: trio.CancelScope) -> None:
        with scope:
            while True:
                await trio.sleep_until(watch.check.due_at)
                async with self._places:
                    watch.check.begin(trio.current_time())
                    outcome = await self._probe(watch.target.probe)
                # A probe may end in the very moment in which it is given up: its row may be another's by now.
                if scope.cancel_called:
                    return
                self._conclude(watch, outcome)

    def _conclude(self, watch: _Watch, outcome: Outcome) -> None:
        watch.count(outcome)
        member, subject = watch.target.member, watch.key.subject
        if outcome.passed is not True:
            event = Event.HEALTH_CHECK_FAILED if outcome.passed is False else Event.HEALTH_CHECK_IMPOSSIBLE
            self._log.write(
                event, pool=member.pool, backend=member.name, check=subject.value, reason=outcome.reason
            )
        changed = watch.check.conclude(outcome.passed, trio.current_time(), self._chance.random())
        changed = changed or self._is_contradicted(watch)
        if subject is Subject.LIVENESS:
            if changed:
                self._turn_liveness(watch, outcome)
            return
        if changed:
            self._turn_health(watch, outcome)
        if outcome.passed is not None:
            self._cells.set_checked(member.row)
            self._unanswered.discard(watch.key)
            self._look_if_settled()

    def _is_contradicted(self, watch: _Watch) -> bool:
        """Whether the table says something else than was decided. It must not stay so until the next turn."""
        standing = watch.check.standing
        return standing is not Standing.UNDECIDED and standing is not self._standing(watch.key, watch.target)

    def _turn_health(self, watch: _Watch, outcome: Outcome) -> None:
        is_up = watch.check.standing is Standing.PASSING
        self._publish(watch.target.member, Health.UP if is_up else Health.DOWN, outcome.reason or None)

    def _turn_liveness(self, watch: _Watch, outcome: Outcome) -> None:
        member = watch.target.member
        alive = watch.check.standing is Standing.PASSING
        self._cells.set_liveness(member.row, Liveness.ALIVE if alive else Liveness.DEAD)
        event = Event.BACKEND_ALIVE if alive else Event.BACKEND_DEAD
        self._log.write(event, pool=member.pool, backend=member.name, reason=outcome.reason or None)

    def _publish(self, member: Member, health: Health, reason: str | None) -> None:
        """Tells the workers first, then people."""
        was, seconds = self._cells.health(member.row), self._cells.health_age(member.row)
        self._cells.set_health(member.row, health)
        self._log.write(
            Event.BACKEND_DOWN if health is Health.DOWN else Event.BACKEND_UP,
            pool=member.pool,
            backend=member.name,
            was=was.name.lower(),
            seconds=seconds,
            reason=reason,
        )

    def _look_if_settled(self) -> None:
        if not self._unanswered:
            self._settled.set()


_OF_HEALTH: Final = {
    Health.UP: Standing.PASSING,
    Health.STARTING: Standing.PASSING,
    Health.DOWN: Standing.FAILING,
    Health.CHECKING: Standing.UNDECIDED,
}
_OF_LIVENESS: Final = {
    Liveness.UNKNOWN: Standing.UNDECIDED,
    Liveness.ALIVE: Standing.PASSING,
    Liveness.DEAD: Standing.FAILING,
}
