"""The supervisor's loop: waits for signals, children and commands, and does what `Supervision` decides.

One thread that waits in one place. Nothing here waits for a child, a client or a name server: sends are
kept when they do not fit, exits are collected when they are there. What comes from children and from the
control socket is not trusted; it can cost its sender the connection, never more.
"""

from __future__ import annotations

import os
import selectors
import signal
from collections import deque
from collections.abc import Callable

from lbproc.config.certified import today
from lbproc.config.model import Config
from lbproc.config.pem_file import stamp_of
from lbproc.core.control.membership import Membership
from lbproc.core.control.messages import (
    AdminRequest,
    BackendAddRequest,
    BackendRemoveRequest,
    CommandLineRequest,
    Drained,
    FailedToBoot,
    Following,
    Message,
    Prepared,
    Ready,
    Refused,
    Relinquished,
    ReloadRequest,
    ReopenLogs,
    Reply,
    Resolved,
    StatusRequest,
    StopRequest,
    WeightRequest,
    Worn,
)
from lbproc.core.supervision import END_WITHIN, Supervision
from lbproc.core.supervision_events import (
    AnnounceReady,
    ChildFailedToBoot,
    ChildReady,
    ChildWorn,
    CloseListeners,
    CloseSlot,
    Command,
    Event,
    Exit,
    Listen,
    RefuseConnections,
    Report,
    RetireSlots,
    SlotDrained,
    Started,
    StopRequested,
    Ticked,
)
from lbproc.errors import ControlError, LbprocError
from lbproc.shm.clock import monotonic_ns
from lbproc.shm.views import SupervisorView
from lbproc.supervisor.belongings import Belongings, Entries
from lbproc.supervisor.carrying import Carrying
from lbproc.supervisor.certificates import CertificateCare
from lbproc.supervisor.children import Children, Process
from lbproc.supervisor.control import ControlServer, Respond
from lbproc.supervisor.publishing import Publishing
from lbproc.supervisor.reloading import Reloading
from lbproc.supervisor.signals import STOPPING, SignalQueue
from lbproc.supervisor.status import describe
from lbproc.supervisor.steering import Steering
from lbproc.supervisor.surroundings import Surroundings
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
        adapt: applies what the command line said to every configuration that is loaded.
    """

    def __init__(
        self,
        belongings: Belongings,
        view: SupervisorView,
        membership: Membership,
        entries: Entries,
        signals: SignalQueue,
        on_ready: Callable[[], None],
        adapt: Callable[[Config], Config],
    ) -> None:
        self._own = belongings
        self._log = belongings.log
        self._view = view
        self._publishing = Publishing(view, membership, belongings.log)
        self._steering = Steering(view, belongings.log, _now, self._publishing)
        self._on_ready = on_ready
        self._certificates = CertificateCare(belongings.log, stamp_of, today)
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
        self._carrying = Carrying(belongings, self._children, self._happened)
        self._reloading = Reloading(
            Surroundings(
                belongings,
                view,
                self._children,
                self._supervision,
                self._selector,
                self._children.release_in_helper,
                self._happened,
                self._publishing,
                _now,
            ),
            membership.generation,
            os.environ,
            adapt,
        )

    def run(self) -> Exit:
        """Supervises to the end. Nothing that belongs to the supervisor is left then."""
        last_word = None
        try:
            self._publishing.publish()
            self._happened(Started())
            while self._end is None:
                for key, events in self._selector.select(self._patience()):
                    key.data(events)
                self._children.reap()
                self._tick_if_due()
                self._own.notifier.beat(_now())
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
        self._reloading.look_at_members()

    def _patience(self) -> Seconds:
        due_at = min(
            self._next_tick_at,
            self._supervision.next_wakeup(),
            self._steering.next_wakeup(),
            self._reloading.next_wakeup(),
            self._own.notifier.next_beat_at,
        )
        return max(0.0, due_at - _now())

    def _tick_if_due(self) -> None:
        now = _now()
        if now >= self._steering.next_wakeup():
            self._steering.look()
        if now >= self._reloading.next_wakeup():
            self._reloading.tick()
        if now < min(self._next_tick_at, self._supervision.next_wakeup()):
            return
        self._next_tick_at = now + TICK
        self._control.expire()
        if self._certificates.tick(self._own.config, now, can_renew=self._reloading.can_begin):
            self._reloading.renew(self._certificates.refused)
        self._publishing.free_places(self._steering.awaited())
        self._happened(Ticked(self._children.heartbeats()))

    def _on_signals(self, _events: int) -> None:
        for number in self._signals.take():
            if number in STOPPING:
                self._happened(StopRequested(STOPPING[number], number.name))
            elif number is signal.SIGUSR1:
                self._reopen_logs()
            elif number is signal.SIGHUP:
                self._reloading.hang_up()
            # SIGCHLD has done its work by waking the loop.

    def _heard(self, process: Process, message: Message) -> None:
        match message:
            case Ready():
                self._happened(ChildReady(process.name))
            case FailedToBoot(reason):
                self._happened(ChildFailedToBoot(process.name, reason))
            case Worn() if process.slot is not None:
                self._happened(ChildWorn(process.name))
            case Drained(slot):
                self._happened(SlotDrained(process.name, Slot(slot)))
            case Resolved(addresses) if process.slot is None:
                self._publishing.resolve(addresses)
            case Prepared() | Refused() | Following() | Relinquished():
                self._reloading.hear(process.name, message)
            case _:
                raise ControlError(f"a child has no business to send {type(message).__name__}")

    def _answer(self, request: CommandLineRequest, respond: Respond) -> Reply | None:
        match request:
            case StatusRequest():
                return Reply(ok=True, body=self._describe())
            case StopRequest(now, wait):
                self._happened(StopRequested(now, "lbproc stop"))
                return None if wait else Reply(ok=True, body={})
            case ReloadRequest(file, dry_run):
                self._reloading.request(file, dry_run, respond)
                return None
            case AdminRequest() | WeightRequest() | BackendAddRequest() | BackendRemoveRequest():
                self._steering.answer(request, respond)
                return None

    # What is done about it

    def _carry_out(self, command: Command) -> None:
        match command:
            case Listen() | RefuseConnections() | CloseListeners() | RetireSlots() | CloseSlot():
                self._carrying.on_listeners(command)
            case AnnounceReady():
                self._log.write(LogEvent.READY, workers=self._own.workers)
                self._write_pid_file()
                self._own.notifier.ready(f"serving with {self._own.workers} workers")
                self._on_ready()
                self._reloading.open()
            case Report(event, _, fields):
                self._carrying.report(command)
                if event == "stopping":
                    self._reloading.stop()
                    self._own.notifier.stopping(float(dict(fields)["drain_timeout"]) + END_WITHIN)
            case Exit():
                self._end = command
            case _:
                self._carrying.on_child(command)

    def _write_pid_file(self) -> None:
        """Without it lbproc serves as well, so a disk that is full by now does not end the service."""
        if self._own.pid_file is None:
            return
        try:
            self._own.pid_file.write()
        except OSError as error:
            self._log.write(LogEvent.PID_FILE_FAILED, reason=error.strerror)

    def _reopen_logs(self) -> None:
        """Makes the new files before the children open them, because they may have no right to."""
        done = self._log.reopen()
        if self._own.access_log is not None:
            done = self._log.reopen_sink(self._own.access_log) and done
        self._children.send_to_all(ReopenLogs())
        if done:
            self._log.write(LogEvent.LOGS_REOPENED)

    def _describe(self) -> dict[str, object]:
        return describe(
            config_path=self._own.config_path,
            uptime=_now() - self._started_at,
            places=self._supervision.places(),
            processes=self._children.places(),
            membership=self._publishing.membership,
            reader=self._view.reader,
            reload=self._reloading.describe(),
            today=today(),
        )

    def _release_in_child(self) -> None:
        self._signals.close_in_child()
        self._selector.close()
        self._control.close_in_child()
        self._reloading.close_in_child()

    def _close(self, last_word: Reply | None) -> None:
        """Closes everything. Those who wait for the end hear of it last, when no file is left."""
        self._reloading.close()
        self._own.sockets.close()
        self._own.inboxes.close()
        if self._own.admin_socket is not None:
            self._own.admin_socket.close()
        self._own.passed.close()
        self._children.close()
        if self._end is not None:
            if self._end.reason:
                self._log.write(LogEvent.START_FAILED, reason=self._end.reason)
            self._log.write(LogEvent.STOPPED, status=self._end.status)
        if self._own.pid_file is not None:
            self._own.pid_file.remove()
        self._control.close(last_word)
        self._selector.close()
        self._own.table.close()
        if self._own.access_log is not None:
            self._own.access_log.close()
        self._log.close()
        self._signals.close()


def _now() -> Seconds:
    return monotonic_ns() / 1e9
