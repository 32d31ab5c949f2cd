"""Carries out what `Supervision` decides: on listening sockets and inboxes, and on children.

Acts and decides nothing. What comes of it becomes an event, as does what cannot be done.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import assert_never

from lbproc.core.control.messages import Disown, Leave, Stop
from lbproc.core.control.messages import DrainSlot as DrainSlotMessage
from lbproc.core.supervision_events import (
    AdoptSlot,
    ChildCommand,
    ChildId,
    CloseListeners,
    CloseSlot,
    DisownSlot,
    DrainSlot,
    DumpChild,
    Event,
    KillChild,
    Listen,
    ListenerCommand,
    ListenFailed,
    Listening,
    RefuseConnections,
    RepairColumn,
    Report,
    RetireSlots,
    SendLeave,
    SendStop,
    SpawnChild,
)
from lbproc.errors import StartError
from lbproc.supervisor.belongings import Belongings
from lbproc.supervisor.children import Children
from lbproc.telemetry.events import Event as LogEvent


class Carrying:
    """The hands of the supervisor.

    Args:
        own: has the sockets, the inboxes and the log.
        children: all of them.
        happened: takes the events.
    """

    __slots__ = ("_children", "_happened", "_own")

    def __init__(self, own: Belongings, children: Children, happened: Callable[[Event], None]) -> None:
        self._own = own
        self._children = children
        self._happened = happened

    def on_listeners(self, command: ListenerCommand) -> None:
        """Does something with listening sockets and inboxes."""
        sockets, inboxes = self._own.sockets, self._own.inboxes
        match command:
            case Listen():
                try:
                    sockets.listen()
                except StartError as error:
                    self._happened(ListenFailed(str(error)))
                else:
                    self._happened(Listening())
            case RefuseConnections():
                sockets.refuse()
                inboxes.refuse()
            case CloseListeners():
                sockets.close()
                inboxes.close()
            case RetireSlots(first):
                sockets.retire_from(first)
                inboxes.retire_from(first)
            case CloseSlot(slot):
                sockets.close_slots_from(slot)
                inboxes.close_slots_from(slot)
            case _:
                assert_never(command)

    def on_child(self, command: ChildCommand) -> None:
        """Does something with a child."""
        match command:
            case SpawnChild(name, slot):
                self._children.spawn(name, slot)
                if (process := self._children.get(name)) is not None and process.pid:
                    self._write("controller_started" if slot is None else "worker_started", name, {})
            case DumpChild(name):
                self._children.kill(name, signal.SIGABRT)
            case KillChild(name):
                self._children.kill(name, signal.SIGKILL)
            case RepairColumn(name):
                if repaired := self._children.bury(name):
                    self._own.log.write(
                        LogEvent.COLUMN_REPAIRED, column=repaired.column, released=repaired.returned
                    )
            case _:
                self._tell(command)

    def report(self, report: Report) -> None:
        """Writes to the error log, with the place of the child."""
        self._write(report.event, report.child, dict(report.fields))

    def _tell(self, command: SendStop | SendLeave | AdoptSlot | DisownSlot | DrainSlot) -> None:
        match command:
            case SendStop(name, at_once, retires):
                self._children.send(name, Stop(at_once, retires))
            case SendLeave(name):
                self._children.send(name, Leave())
            case AdoptSlot(slot, name):
                self._children.send_sockets(name, slot)
            case DisownSlot(slot, name):
                self._children.send(name, Disown(slot))
            case DrainSlot(slot, name):
                self._children.send(name, DrainSlotMessage(slot))
            case _:
                assert_never(command)

    def _write(self, event: str, child: ChildId | None, fields: dict[str, str | int | float]) -> None:
        process = None if child is None else self._children.get(child)
        place: dict[str, int | None] = (
            {} if process is None else {"slot": process.slot, "pid": process.pid or None}
        )
        self._own.log.write(LogEvent[event.upper()], **place, **fields)
