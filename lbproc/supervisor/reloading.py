"""The shell of a reload: does what `lbproc.core.reload` decides, and tells it what came of it.

Owns what is loaded and opened for a configuration that is not in force yet, until the commit puts all of it
in force or an undo closes all of it. Nothing here waits. The commit is one step: everything in it that may
fail comes first and changes nothing; then the generation is stored, and from there on nothing may fail.
"""

from __future__ import annotations

import selectors
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import assert_never

from lbproc.config.model import Config
from lbproc.core.control.messages import (
    Abandon,
    Follow,
    Following,
    Prepared,
    Progress,
    Refused,
    Relinquished,
    Reply,
)
from lbproc.core.reload import Reload, Stage
from lbproc.core.reload_events import (
    Answer,
    AskToPrepare,
    Bind,
    BindFailed,
    Bound,
    ChildFollowed,
    ChildPrepared,
    ChildRefused,
    ChildRelinquished,
    CloseRemoved,
    Command,
    Commit,
    CommitFailed,
    Committed,
    Event,
    HangupReceived,
    Load,
    Loaded,
    LoadFailed,
    Member,
    MembersChanged,
    ReloadRequested,
    ReplaceChild,
    ServiceOpened,
    ServiceStopping,
    TellToAbandon,
    TellToFollow,
    Ticket,
    TimePassed,
    Undo,
)
from lbproc.core.supervision_events import ChildId, ChildStraggled, Reconfigured
from lbproc.errors import LbprocError
from lbproc.supervisor.answering import Answering
from lbproc.supervisor.binding import BusyError
from lbproc.supervisor.control import Respond
from lbproc.supervisor.following import FollowingConfig
from lbproc.supervisor.loader import Loader
from lbproc.supervisor.surroundings import Surroundings
from lbproc.supervisor.tickets import adapt_and_prove, tell_of_tickets
from lbproc.types import Seconds

ReloadMessage = Prepared | Refused | Following | Relinquished
"""What children say during a reload."""


class Reloading:
    """All reloads of one run of the supervisor.

    Args:
        around: the rest of the supervisor.
        generation: in force.
        environ: where secrets are looked up.
        adapt: applies what the command line of `run` said to a configuration.
    """

    def __init__(
        self,
        around: Surroundings,
        generation: int,
        environ: Mapping[str, str],
        adapt: Callable[[Config], Config],
    ) -> None:
        self._around = around
        self._own = around.own
        self._environ = environ
        self._adapt = adapt
        self._machine = Reload(generation)
        self._queue: deque[Event | Callable[[], None]] = deque()
        self._members = MembersChanged((), is_complete=False)
        self._answering = Answering(around.own)
        self._renewal: Ticket | None = None
        self._loader: Loader | None = None
        self._following: FollowingConfig | None = None

    # What happens

    def request(self, file: str, dry_run: bool, respond: Respond) -> None:
        """The command line wants a reload."""
        self._happened(ReloadRequested(self._answering.wait(respond), file, dry_run))

    def renew(self, on_refused: Callable[[], None]) -> None:
        """Files of certificates have changed: the configuration in force is loaded again with them.

        Args:
            on_refused: called if that does not come in force.
        """

        def respond(said: Progress | Reply) -> bool:
            if isinstance(said, Reply) and not said.ok:
                on_refused()
            return True

        self._renewal = self._answering.wait(respond)
        self._happened(ReloadRequested(self._renewal, str(self._own.config_path), dry_run=False))

    def hang_up(self) -> None:
        """SIGHUP."""
        self._happened(HangupReceived())

    def open(self) -> None:
        """The service is ready for the first time."""
        self._happened(ServiceOpened())

    def stop(self) -> None:
        """A stop has begun."""
        self._happened(ServiceStopping())

    def look_at_members(self) -> None:
        """Something happened to the children."""
        supervision = self._around.supervision
        members = tuple(
            Member(
                child,
                "the controller" if slot is None else f"worker {slot}",
                slot is not None,
                supervision.is_draining(child),
            )
            for child, slot in supervision.reachable().items()
        )
        changed = MembersChanged(members, supervision.is_complete)
        if changed != self._members:
            self._members = changed
            self._happened(changed)

    def hear(self, child: ChildId, message: ReloadMessage) -> None:
        """A child said something that belongs to a reload."""
        match message:
            case Prepared(generation):
                self._happened(ChildPrepared(child, generation))
            case Refused(generation, reason):
                self._happened(ChildRefused(child, generation, reason))
            case Following(generation):
                self._happened(ChildFollowed(child, generation))
            case Relinquished(generation):
                self._happened(ChildRelinquished(child, generation))

    def next_wakeup(self) -> Seconds:
        """When `tick` is due at the latest."""
        return self._machine.next_wakeup()

    def tick(self) -> None:
        """Time has passed."""
        if self._machine.stage is not Stage.IDLE:
            self._happened(TimePassed())

    def describe(self) -> dict[str, object]:
        """What `status` shows."""
        return {"stage": self._machine.stage.value, "last_refusal": self._machine.last_refusal or None}

    @property
    def can_begin(self) -> bool:
        """Whether a reload would begin now."""
        return self._machine.can_begin

    def close_in_child(self) -> None:
        """In a forked process: closes what nobody but the supervisor uses."""
        if self._loader is not None:
            self._loader.close()
        if self._following is not None:
            self._following.close_in_child()

    def close(self) -> None:
        """The supervisor ends: whoever waits hears so."""
        self._undo()
        self._answering.close()

    def _happened(self, event: Event | Callable[[], None]) -> None:
        """Lets the state machine decide, and does what it says. What that leads to is next in line."""
        self._queue.append(event)
        if len(self._queue) > 1:
            return  # the call that is under way takes it
        while self._queue:
            first = self._queue[0]
            if callable(first):
                first()
            else:
                for command in self._machine.handle(first, self._around.clock()):
                    self._carry_out(command)
            self._queue.popleft()

    # What is done about it

    def _carry_out(self, command: Command) -> None:
        match command:
            case Load():
                self._load(command)
            case Bind(generation):
                self._bind(generation)
            case AskToPrepare(child, generation):
                self._ask_to_prepare(child, generation)
            case Commit(generation):
                self._commit(generation)
            case CloseRemoved():
                self._own.sockets.close_removed()
                self._own.former = None
            case Undo():
                self._undo()
            case Answer():
                self._answering.answer(command, self._machine.generation)
            case _:
                self._tell(command)

    def _tell(self, command: TellToFollow | TellToAbandon | ReplaceChild) -> None:
        around = self._around
        match command:
            case TellToFollow(child, generation):
                around.children.send(child, Follow(generation))
            case TellToAbandon(child, generation):
                around.children.send(child, Abandon(generation))
            case ReplaceChild(child):
                around.supervise(ChildStraggled(child))
            case _:
                assert_never(command)

    def _load(self, command: Load) -> None:
        config, log = self._own.config, self._own.log.renamed("loader")
        self._answering.begin(command)
        renews = command.ticket is not None and command.ticket == self._renewal
        try:
            self._loader = Loader(
                self._answering.path,
                self._environ,
                config,
                partial(adapt_and_prove, self._adapt, self._own.tickets),
                self._around.release,
                log,
                renews=renews,
            )
        except LbprocError as error:
            self._happened(LoadFailed(str(error)))
            return
        self._around.selector.register(self._loader, selectors.EVENT_READ, self._on_loader)

    def _on_loader(self, _events: int) -> None:
        if self._loader is None or (said := self._loader.read()) is None:
            return
        self._around.selector.unregister(self._loader)
        loader, self._loader = self._loader, None
        self._answering.learn(said.changes, said.warnings)
        try:
            if said.refusal:
                self._happened(LoadFailed(said.refusal))
                return
            memory, config = loader.take()
            tell_of_tickets(self._own.tickets, config, self._own.log)
        except LbprocError as error:
            self._happened(LoadFailed(str(error)))
            return
        finally:
            loader.close()
        self._following = FollowingConfig(config, self._answering.path, memory)
        self._happened(Loaded(len(said.changes)))

    def _bind(self, generation: int) -> None:
        following, around = self._following, self._around
        assert following is not None
        try:
            following.open(self._own, may_grow=not around.supervision.is_retiring)
            following.membership = around.publishing.prepare(following.config, generation)
            around.publishing.check(following.membership)
        except LbprocError as error:
            following.undo(self._own)
            self._happened(BindFailed(str(error), may_pass=isinstance(error, BusyError)))
        else:
            self._happened(Bound())

    def _ask_to_prepare(self, child: ChildId, generation: int) -> None:
        following = self._following
        assert following is not None
        places = self._around.supervision.places()
        slot = next((place.slot for place in places if place.child == child and place.state == "ready"), None)
        if slot is not None and slot < following.workers:
            self._around.children.lend(child, generation, slot, self._own.sockets.lent(slot))
        is_worker = any(one.child == child and one.is_worker for one in self._members.members)
        message, descriptors = following.message(self._own, generation, is_worker=is_worker)
        self._around.children.send(child, message, descriptors)

    def _commit(self, generation: int) -> None:
        around, own, following = self._around, self._own, self._following
        assert following is not None
        assert following.membership is not None
        try:
            around.publishing.check(following.membership)
            own.sockets.listen_next()
        except LbprocError as error:
            self._happened(CommitFailed(str(error)))
            return
        # Nothing fails from here on. Whoever follows the new generation finds its membership, and whoever
        # follows the old one passes over it.
        around.publishing.membership = following.membership
        around.publishing.publish()
        around.view.set_generation(generation)
        self._following = None
        closes = following.commit(own)
        self._happened(Committed(closes))
        self._happened(self._reconfigure)  # after everybody was told to follow

    def _reconfigure(self) -> None:
        """Lets supervision know, and gives adopters the new addresses of slots that they serve."""
        around, runtime = self._around, self._own.config.runtime
        for slot, child in around.supervision.adopted().items():
            around.children.send_more_sockets(child, slot, self._own.sockets.newest_of_slot(slot))
        around.supervise(Reconfigured(self._own.workers, runtime.heartbeat_timeout, runtime.drain_timeout))

    def _undo(self) -> None:
        if self._loader is not None:
            self._around.selector.unregister(self._loader)
            self._loader.kill()
            self._loader.close()
            self._loader = None
        if self._following is not None:
            if self._following.membership is not None:
                self._around.publishing.discard(self._following.membership)
            self._following.undo(self._own)
            self._following.close()
            self._following = None
