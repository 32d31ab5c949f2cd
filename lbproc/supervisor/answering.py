"""Who waits for a reload, and what is said of it: to them, to the log, and to the service manager.

Owns the requests that wait, each until its one answer, and what there is to tell of the reload under way.
Decides nothing: how a reload ended is `lbproc.core.reload`'s.
"""

from __future__ import annotations

import os
from pathlib import Path

from lbproc.core.control.messages import Reply
from lbproc.core.reload_events import Answer, Load, Outcome, Ticket
from lbproc.supervisor.belongings import Belongings
from lbproc.supervisor.control import Respond
from lbproc.telemetry.events import Event


class Answering:
    """All that is said of the reloads of one run of the supervisor.

    Args:
        own: has the log and the notifier.
    """

    __slots__ = (
        "_changes",
        "_current",
        "_log",
        "_next_ticket",
        "_own",
        "_requests",
        "_started_with",
        "_warnings",
        "path",
    )

    def __init__(self, own: Belongings) -> None:
        self._own = own
        self._log = own.log
        self._started_with = own.config_path
        self.path = own.config_path
        """What the last load has read, or reads."""
        self._requests: dict[Ticket, Respond] = {}
        self._next_ticket = 0
        self._current: Load | None = None
        self._changes: tuple[str, ...] = ()
        self._warnings: tuple[str, ...] = ()

    def wait(self, respond: Respond) -> Ticket:
        """Somebody waits for an answer."""
        ticket = Ticket(self._next_ticket)
        self._next_ticket += 1
        self._requests[ticket] = respond
        return ticket

    def begin(self, load: Load) -> None:
        """A reload, or a dry run, begins to load."""
        self._current, self._changes, self._warnings = load, (), ()
        self.path = Path(load.file) if load.file else self._started_with
        if not load.dry_run:
            self._own.notifier.reloading()
            self._log.write(Event.RELOADING, config=self.path)

    def learn(self, changes: tuple[str, ...], warnings: tuple[str, ...]) -> None:
        """What it would change, and what of it should be looked at."""
        self._changes, self._warnings = changes, warnings

    def answer(self, answer: Answer, generation: int) -> None:
        """A request is answered: that of the reload under way, or another, which is refused.

        Args:
            answer: how it ended.
            generation: in force.
        """
        current = self._current
        if current is not None and current.ticket == answer.ticket:
            self._current = None
            if not current.dry_run:
                self._tell_manager(answer.reason)
        respond = None if answer.ticket is None else self._requests.pop(answer.ticket)
        if current is None or not current.dry_run:
            self._write(answer, generation)
        if respond is None:
            return
        if answer.outcome is Outcome.REFUSED:
            respond(Reply(ok=False, body=answer.reason))
            return
        body: dict[str, object] = {
            "outcome": answer.outcome.value,
            "generation": generation,
            "config": os.fspath(self.path),
            "changes": list(self._changes),
            "warnings": list(self._warnings),
        }
        respond(Reply(ok=True, body=body))

    def close(self) -> None:
        """The supervisor ends: whoever waits hears so."""
        for respond in self._requests.values():
            respond(Reply(ok=False, body="lbproc stopped before the reload was done"))
        self._requests.clear()

    def _tell_manager(self, reason: str) -> None:
        serving = f"serving with {self._own.workers} workers"
        self._own.notifier.ready(f"{serving}; a reload was refused: {reason}" if reason else serving)

    def _write(self, answer: Answer, generation: int) -> None:
        if answer.outcome is Outcome.REFUSED:
            self._log.write(Event.RELOAD_REFUSED, reason=answer.reason)
            return
        for warning in self._warnings:
            self._log.write(Event.CONFIG_WARNING, warning=warning)
        for change in self._changes:
            self._log.write(Event.CONFIG_CHANGED, change=change)
        self._log.write(Event.RELOADED, generation=generation, config=self.path, changes=len(self._changes))
