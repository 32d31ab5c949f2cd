"""The supervisor's loop: waits for signals, children and commands, and does what `Supervision` decides.

One thread that waits in one place. Nothing here waits for a child, a client or a name server: sends are
kept when they do not fit, exits are collected when they are there. What comes from children and from the
control socket is not trusted; it can cost its sender the connection, never more.
"""

from __future__ import annotations

import selectors
import signal
from collections import deque
from collections.abc import Callable
from typing import assert_never

from lbproc.core.control.membership import Membership
from lbproc.core.control.messages import (
    CommandLineRequest,
    Disown,
    Drained,
    FailedToBoot,
    Message,
    Ready,
    ReopenLogs,
    Reply,
    Resolved,
    StatusRequest,
    Stop,
    StopRequest,
)
from lbproc.core.supervision import Supervision
from lbproc.core.supervision_events import (
    AdoptSlot,
    AnnounceReady,
    ChildCommand,
    ChildFailedToBoot,
    ChildId,
    ChildReady,
    CloseListeners,
    Command,
    DisownSlot,
    DumpChild,
    Event,
    Exit,
    KillChild,
    Listen,
    ListenFailed,
    Listening,
    RefuseConnections,
    RepairColumn,
    Report,
    SendStop,
    SlotDrained,
    SpawnChild,
    Started,
    StopRequested,
    Ticked,
)
from lbproc.errors import ControlError, LbprocError, StartError
from lbproc.shm.clock import monotonic_ns
from lbproc.shm.views import SupervisorView
from lbproc.supervisor.belongings import Belongings, Entries
from lbproc.supervisor.children import Children, Process
from lbproc.supervisor.control import ControlServer
from lbproc.supervisor.signals import STOPPING, SignalQueue
from lbproc.supervisor.status import describe
from lbproc.telemetry.events import Event as LogEvent
from lbproc.types import Seconds, Slot

TICK: Seconds = 1.0


class Shell:
    """One run of the supervisor.

    Args:
        belongings: closed at the end of `run`.
        view: of the table.
        membership: what is published of the backends.
        entries: what the children run.
        signals: closed at the end of `run`, last.
        on_ready: called once, when every child is ready for the first time.
    """

    def __init__(
        self,
        belongings: Belongings,
        view: SupervisorView,
        membership: Membership,
        entries: Entries,
        signals: SignalQueue,
        on_ready: Callable[[], None],
    ) -> None:
        self._own = belongings
        self._log = belongings.log
        self._view = view
        self._membership = membership
        self._on_ready = on_ready
        runtime = belongings.config.runtime
        self._supervision = Supervision(belongings.workers, runtime.heartbeat_timeout, runtime.drain_timeout)
        self._events: deque[Event] = deque()
        self._end: Exit | None = None
        self._started_at = _now()
        self._next_tick_at = self._started_at + TICK
        self._selector = selectors.DefaultSelector()
        self._signals = signals
        self._selector.register(self._signals, selectors.EVENT_READ, self._on_signals)
        self._control = ControlServer(belongings.control, self._selector, self._answer, _now, self._log)
        self._children = Children(
            belongings,
            view,
            entries,
            self._selector,
            release=self._release_in_child,
            happened=self._happened,
            heard=self._heard,
        )

    def run(self) -> Exit:
        """Supervises to the end. Nothing that belongs to the supervisor is left then."""
        last_word = None
        try:
            self._publish()
            self._happened(Started())
            while self._end is None:
                for key, events in self._selector.select(self._patience()):
                    key.data(events)
                self._children.reap()
                self._tick_if_due()
            last_word = Reply(ok=True, body={"status": self._end.status})
        except LbprocError as error:
            self._log.write(LogEvent.START_FAILED, reason=error)
            raise
        except Exception as error:
            self._log.write_crash(LogEvent.CRASHED, error)
            raise
        finally:
            self._close(last_word)
        return self._end

    # What happens

    def _happened(self, event: Event) -> None:
        """Lets the state machine decide, and does what it says. What that leads to is next in line."""
        self._events.append(event)
        if len(self._events) > 1:
            return  # the call that is under way takes it
        while self._events:
            for command in self._supervision.handle(self._events[0], _now()):
                self._carry_out(command)
            self._events.popleft()

    def _patience(self) -> Seconds:
        return max(0.0, min(self._next_tick_at, self._supervision.next_wakeup()) - _now())

    def _tick_if_due(self) -> None:
        now = _now()
        if now < min(self._next_tick_at, self._supervision.next_wakeup()):
            return
        self._next_tick_at = now + TICK
        self._control.expire()
        self._happened(Ticked(self._children.heartbeats()))

    def _on_signals(self, _events: int) -> None:
        for number in self._signals.take():
            if number in STOPPING:
                self._happened(StopRequested(STOPPING[number], number.name))
            elif number is signal.SIGUSR1:
                self._reopen_logs()
            # SIGCHLD has done its work by waking the loop. SIGHUP changes nothing: it must not end a service.

    def _heard(self, process: Process, message: Message) -> None:
        match message:
            case Ready():
                self._happened(ChildReady(process.name))
            case FailedToBoot(reason):
                self._happened(ChildFailedToBoot(process.name, reason))
            case Drained(slot):
                self._happened(SlotDrained(process.name, Slot(slot)))
            case Resolved(addresses) if process.slot is None:
                if self._membership.resolve(addresses):
                    self._publish()
            case _:
                raise ControlError(f"a child has no business to send {type(message).__name__}")

    def _answer(self, request: CommandLineRequest) -> Reply | None:
        match request:
            case StatusRequest():
                return Reply(ok=True, body=self._describe())
            case StopRequest(now, wait):
                self._happened(StopRequested(now, "lbproc stop"))
                return None if wait else Reply(ok=True, body={})

    # What is done about it

    def _carry_out(self, command: Command) -> None:
        match command:
            case Listen():
                try:
                    self._own.sockets.listen()
                except StartError as error:
                    self._happened(ListenFailed(str(error)))
                else:
                    self._happened(Listening())
            case RefuseConnections():
                self._own.sockets.refuse()
                self._own.inboxes.refuse()
            case CloseListeners():
                self._own.sockets.close()
                self._own.inboxes.close()
            case AnnounceReady():
                self._log.write(LogEvent.READY, workers=self._own.workers)
                self._on_ready()
            case Report(event, child, fields):
                self._report(event, child, dict(fields))
            case Exit():
                self._end = command
            case _:
                self._carry_out_on_child(command)

    def _carry_out_on_child(self, command: ChildCommand) -> None:
        match command:
            case SpawnChild(name, slot):
                self._children.spawn(name, slot)
                if (process := self._children.get(name)) is not None and process.pid:
                    self._report("controller_started" if slot is None else "worker_started", name, {})
            case SendStop(name, at_once):
                self._children.send(name, Stop(at_once))
            case DumpChild(name):
                self._children.kill(name, signal.SIGABRT)
            case KillChild(name):
                self._children.kill(name, signal.SIGKILL)
            case AdoptSlot(slot, name):
                self._children.send_sockets(name, slot)
            case DisownSlot(slot, name):
                self._children.send(name, Disown(slot))
            case RepairColumn(name):
                if repaired := self._children.bury(name):
                    self._log.write(
                        LogEvent.COLUMN_REPAIRED, column=repaired.column, released=repaired.returned
                    )
            case _:
                assert_never(command)

    def _reopen_logs(self) -> None:
        """Makes the new files before the children open them, because they may have no right to."""
        done = self._log.reopen()
        if self._own.access_log is not None:
            done = self._log.reopen_sink(self._own.access_log) and done
        self._children.send_to_all(ReopenLogs())
        if done:
            self._log.write(LogEvent.LOGS_REOPENED)

    def _publish(self) -> None:
        epoch = self._view.publish_membership(self._membership.encode())
        backends = sum(len(pool.backends) for pool in self._own.config.pools.values())
        self._log.write(LogEvent.MEMBERSHIP_PUBLISHED, epoch=epoch, backends=backends)

    def _report(self, event: str, child: ChildId | None, fields: dict[str, str | int | float]) -> None:
        process = None if child is None else self._children.get(child)
        place: dict[str, int | None] = (
            {} if process is None else {"slot": process.slot, "pid": process.pid or None}
        )
        self._log.write(LogEvent[event.upper()], **place, **fields)

    def _describe(self) -> dict[str, object]:
        return describe(
            config=self._own.config,
            config_path=self._own.config_path,
            uptime=_now() - self._started_at,
            places=self._supervision.places(),
            processes=self._children.places(),
            membership=self._membership,
            reader=self._view.reader,
        )

    def _release_in_child(self) -> None:
        self._signals.close_in_child()
        self._selector.close()
        self._control.close_in_child()

    def _close(self, last_word: Reply | None) -> None:
        """Closes everything. Those who wait for the end hear of it last, when no file is left."""
        self._own.sockets.close()
        self._own.inboxes.close()
        if self._own.admin_socket is not None:
            self._own.admin_socket.close()
        self._children.close()
        if self._end is not None:
            if self._end.reason:
                self._log.write(LogEvent.START_FAILED, reason=self._end.reason)
            self._log.write(LogEvent.STOPPED, status=self._end.status)
        self._control.close(last_word)
        self._selector.close()
        self._own.table.close()
        if self._own.access_log is not None:
            self._own.access_log.close()
        self._log.close()
        self._signals.close()


def _now() -> Seconds:
    return monotonic_ns() / 1e9
