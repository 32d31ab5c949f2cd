"""A configuration that is about to be in force: everything that it needs and that is not there yet.

Owns what was opened for it, until `commit` makes it the supervisor's or `undo` closes it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from lbproc.config.model import Config
from lbproc.core.control.membership import Membership
from lbproc.core.control.messages import Prepare
from lbproc.errors import StartError
from lbproc.supervisor.belongings import Belongings
from lbproc.supervisor.binding import BusyError
from lbproc.supervisor.rights import descriptors_needed, raise_descriptor_limit
from lbproc.telemetry.sink import FileOwner, Sink

OTHER_COLUMNS = 3
"""Besides the workers' columns: nobody's, the supervisor's, the controller's."""


@dataclass(slots=True)
class FollowingConfig:
    """One configuration that was loaded.

    Args:
        config: the whole of it.
        path: where it came from.
        memory: a descriptor of the sealed file with it; belongs to this object.
        workers: how many there will be.
        access_log: where it goes, if that is elsewhere than now.
        error_log: likewise.
        membership: what will be published.
    """

    config: Config
    path: Path
    memory: int
    workers: int = 0
    access_log: Sink | None = None
    error_log: Sink | None = None
    membership: Membership | None = None

    def open(self, own: Belongings, *, may_grow: bool) -> None:
        """Opens what is new. Never waits. After an error `undo` it.

        Args:
            own: what is in force.
            may_grow: False while slots that were given up are not yet closed.

        Raises:
            BusyError: something is in the way that may go by itself.
            StartError: something cannot be opened.
        """
        config, before = self.config, own.config
        self.workers = count_workers(config)
        check_columns(config, self.workers)
        if self.workers > own.workers and not may_grow:
            raise BusyError("workers that were given up still take what is queued; try again")
        raise_descriptor_limit(descriptors_needed(config, self.workers) + 2 * len(own.passed))
        own.sockets.prepare(config, self.workers)
        own.inboxes.prepare(self.workers)
        owner = None
        if own.account is not None:
            owner = FileOwner(own.account.name, own.account.uid, own.account.gid)
        if config.log.access not in {before.log.access, "off"}:
            self.access_log = Sink(config.log.access, owner)
        if config.log.error != before.log.error:
            self.error_log = Sink(config.log.error, owner)

    def message(
        self, own: Belongings, generation: int, *, is_worker: bool
    ) -> tuple[Prepare, tuple[int, ...]]:
        """What a child is told of it, and the descriptors that go along.

        Args:
            own: has what was opened.
            generation: that it will have.
            is_worker: or the controller, which gives nothing away and logs no requests.
        """
        outboxes = own.inboxes.next_outboxes() if is_worker else {}
        access_log = self.access_log if is_worker else None
        sinks = [sink for sink in (access_log, self.error_log) if sink is not None]
        message = Prepare(
            generation,
            self.workers,
            own.sockets.next_names(),
            tuple(outboxes),
            access_log=access_log is not None,
            error_log=self.error_log is not None,
        )
        ends = [end.fileno() for end in outboxes.values()]
        return message, (self.memory, *ends, *(sink.fileno() for sink in sinks))

    def commit(self, own: Belongings) -> bool:
        """Makes it what is in force; returns whether addresses went. Cannot fail."""
        closes = own.sockets.commit()
        own.former = own.config if closes else None
        own.inboxes.commit(self.workers)
        own.config, own.config_path, own.workers = self.config, self.path, self.workers
        if own.access_log is not None and (self.access_log is not None or self.config.log.access == "off"):
            own.access_log.close()
            own.access_log = None
        if self.access_log is not None:
            own.access_log = self.access_log
        own.log.change(self.config.log.level, self.error_log)
        self.access_log = self.error_log = None
        self.close()
        return closes

    def undo(self, own: Belongings) -> None:
        """Closes what was opened. Idempotent."""
        own.sockets.undo()
        own.inboxes.undo()
        for sink in (self.access_log, self.error_log):
            if sink is not None:
                sink.close()
        self.access_log = self.error_log = None

    def close(self) -> None:
        """Closes the memory file. Idempotent."""
        if self.memory >= 0:
            os.close(self.memory)
        self.memory = -1

    def close_in_child(self) -> None:
        """In a forked process: closes all but sockets and inboxes, which know their own."""
        for sink in (self.access_log, self.error_log):
            if sink is not None:
                sink.close()
        self.close()


def count_workers(config: Config) -> int:
    """How many workers the configuration asks for; "auto" is one for each processor this process may use."""
    asked = config.runtime.workers
    return len(os.sched_getaffinity(0)) if asked == "auto" else asked


def check_columns(config: Config, workers: int) -> None:
    """Makes sure that the table has a column for each process.

    Raises:
        StartError: it has too few.
    """
    needed, most = workers + OTHER_COLUMNS, config.runtime.max_columns
    if needed > most:
        raise StartError(f"{workers} workers need a [runtime] max_columns of at least {needed}, not {most}")
