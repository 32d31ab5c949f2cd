"""What is published of the backends: the membership in force, and the places of what is gone.

Owns when something is published, and when rows and the words of pools and listeners are given back. What is
in it is the membership's (``core.control.membership``), when a place is free ``core.control.departures``'.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from lbproc.config.model import Config
from lbproc.core.control.departures import Departures, Key
from lbproc.core.control.membership import Membership
from lbproc.errors import CapacityError
from lbproc.shm.views import Role, SupervisorView
from lbproc.telemetry.events import Event
from lbproc.telemetry.log import ErrorLog
from lbproc.types import Row


class Publishing:
    """The membership in force, as the table has it.

    Args:
        view: of the table.
        membership: in force from the beginning.
        log: for publications.
    """

    __slots__ = ("_listeners", "_log", "_pools", "_prepared", "_rows", "_view", "membership")

    def __init__(self, view: SupervisorView, membership: Membership, log: ErrorLog) -> None:
        self.membership = membership
        self._view = view
        self._log = log
        self._rows: Departures[Key, Row] = Departures()
        self._pools: Departures[str, int] = Departures()
        self._listeners: Departures[str, int] = Departures()
        self._prepared: Membership | None = None
        """Of the next generation, until it is in force or discarded."""

    def publish(self) -> int:
        """Makes the table say what the membership says; gives the epoch.

        The admin states come first: whoever has taken over the publication has seen them.

        Raises:
            CapacityError: it does not fit; then the table says what it said before.
        """
        membership, view = self.membership, self._view
        rows = membership.rows()
        blob = membership.encode()
        self._check(membership, blob)
        for key, member in membership.all_members().items():
            if self._rows.is_gone(key):
                view.start_row(rows[key])  # it is back before its row was another's
            view.set_admin(rows[key], member.admin)
        epoch = view.publish_membership(blob)
        self._rows.published(rows, epoch)
        self._pools.published(membership.tickets(), epoch)
        self._listeners.published(self._places_of(membership.config.listeners), epoch)
        if self._prepared is membership:
            self._rows.tried(_wanted(membership), epoch)
            self._prepared = None
        self._log.write(Event.MEMBERSHIP_PUBLISHED, epoch=epoch, backends=len(rows))
        return epoch

    def resolve(self, addresses: Mapping[str, list[str]]) -> None:
        """Takes over what the controller says of host names, and publishes news.

        If that does not fit, everything stays: how many addresses a name has is up to somebody else.
        """
        before = self.membership.resolve(addresses)
        if before:
            try:
                self.publish()
            except CapacityError as error:
                self.membership.put_back(before)
                self._log.write(Event.CAPACITY_REACHED, reason=error)

    def prepare(self, config: Config, generation: int) -> Membership:
        """The membership of the next generation. `discard` it, or put it in force: then `publish` it.

        Until then what it needs of the table stays its own.

        Raises:
            CapacityError: the table has no room, and nothing of it was taken.
        """
        self._view.check_room(config.pools, self.membership.backends_with(config), config.listeners)
        self._prepared = self.membership.prepare(config, generation)
        self._places_of(config.listeners)
        return self._prepared

    def check(self, prepared: Membership) -> None:
        """Sees whether a membership that was prepared can be published.

        Raises:
            CapacityError: it cannot; `discard` it.
        """
        self._check(prepared, prepared.encode())

    def discard(self, prepared: Membership) -> None:
        """A membership that was prepared will not be in force; the controller may have tried it out."""
        if prepared is not self._prepared:
            return
        self._prepared = None
        wanted, pools = _wanted(prepared), prepared.tickets()
        listeners = prepared.config.listeners
        if (
            self._rows.are_published(wanted)
            and self._pools.are_published(pools)
            and self._listeners.are_published(listeners)
        ):
            return
        self._view.set_abandoned(prepared.generation)
        epoch = self.publish()
        self._rows.discarded(prepared.rows(), epoch)
        self._rows.tried(wanted, epoch)
        self._pools.discarded(pools, epoch)
        self._listeners.discarded(self._places_of(listeners), epoch)

    def free_places(self, awaited: Collection[Row] = ()) -> None:
        """Gives back rows, and words of pools and listeners, that nobody touches; call it now and then.

        Args:
            awaited: rows whose end somebody waits for, and has not seen yet.
        """
        if not (self._rows.has_gone() or self._pools.has_gone() or self._listeners.has_gone()):
            return
        view, prepared = self._view, self._prepared
        followed = view.reader.followed(Role.WORKER, Role.CONTROLLER)

        def is_row_held(key: Key, row: Row) -> bool:
            return row in awaited or view.is_pool_kept(key[0]) or view.reader.in_flight(row) > 0

        def is_pool_held(pool: str, _: int) -> bool:
            return view.is_pool_kept(pool)

        wanted = set() if prepared is None else _wanted(prepared)
        for pool, address in self._rows.free(followed, is_row_held, wanted):
            view.release_row(pool, address)
        pools = set() if prepared is None else set(prepared.config.pools)
        for pool in self._pools.free(followed, is_pool_held, pools):
            view.release_pool(pool)
        listeners = set() if prepared is None else set(prepared.config.listeners)
        # Whether something is open can only be said by trying, see `release_listener`.
        self._listeners.free(followed, lambda name, _: not view.release_listener(name), listeners)

    def _places_of(self, listeners: Iterable[str]) -> dict[str, int]:
        return {name: self._view.ensure_listener(name) for name in listeners}

    def _check(self, membership: Membership, blob: bytes) -> None:
        room = self._view.membership_room
        if len(blob) > room:
            if membership is self.membership:
                self._rows.discarded(membership.rows(), epoch=0)
            raise CapacityError(
                f"the backends take {len(blob)} bytes of the shared table, which has room for {room}; "
                "use fewer backends or shorter names"
            )


def _wanted(prepared: Membership) -> set[Key]:
    """The backends that a prepared membership needs, and all others that the controller may check meanwhile.

    Those are the backends of its file that operators have taken out.
    """
    config = prepared.config
    listed = {(name, str(one.address)) for name, pool in config.pools.items() for one in pool.backends}
    return listed | prepared.all_members().keys()
