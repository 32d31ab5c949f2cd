"""What is published of the backends: the membership in force, and the rows of those that are gone.

Owns when something is published, and when rows are given back. What is in it is the membership's
(``core.control.membership``), when a row is free is ``core.control.departures``'.
"""

from __future__ import annotations

from collections.abc import Mapping

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

    __slots__ = ("_departures", "_log", "_view", "membership")

    def __init__(self, view: SupervisorView, membership: Membership, log: ErrorLog) -> None:
        self.membership = membership
        self._view = view
        self._log = log
        self._departures = Departures()

    def publish(self) -> int:
        """Makes the table say what the membership says; gives the epoch.

        The admin states come first: whoever has taken over the publication has seen them.

        Raises:
            CapacityError: it does not fit; then the table says what it said before.
        """
        membership, view = self.membership, self._view
        rows = membership.rows()
        blob = membership.encode()
        self._check(blob, rows)
        for key, member in membership.all_members().items():
            if self._departures.is_gone(key):
                view.start_row(rows[key])  # it is back before its row was another's
            view.set_admin(rows[key], member.admin)
        epoch = view.publish_membership(blob)
        self._departures.published(rows, epoch)
        self._log.write(Event.MEMBERSHIP_PUBLISHED, epoch=epoch, backends=len(rows))
        return epoch

    def resolve(self, addresses: Mapping[str, list[str]]) -> None:
        """Takes over what the controller says of host names, and publishes news."""
        if self.membership.resolve(addresses):
            self.publish()

    def prepare(self, config: Config, generation: int) -> Membership:
        """The membership of the next generation. Tell `check` or `discard` what becomes of it.

        Raises:
            CapacityError: the table has no room, and nothing of it was taken.
        """
        self._view.check_room(config.pools, self.membership.backends_with(config))
        return self.membership.prepare(config, generation)

    def check(self, prepared: Membership) -> None:
        """Sees whether a membership that was prepared can be published.

        Raises:
            CapacityError: it cannot, and is discarded.
        """
        self._check(prepared.encode(), prepared.rows())

    def discard(self, prepared: Membership) -> None:
        """A membership that was prepared will not be in force; the controller may have tried it out."""
        rows = prepared.rows()
        if self._departures.are_new(rows):
            self._departures.discarded(rows, self.publish())

    def free_rows(self) -> None:
        """Gives back the rows that nobody touches any more. Call it now and then."""
        if self._departures.has_gone():
            reader = self._view.reader
            followed = reader.followed(Role.WORKER, Role.CONTROLLER)
            for (pool, address), _ in self._departures.free(followed, reader.in_flight):
                self._view.release_row(pool, address)

    def _check(self, blob: bytes, rows: Mapping[Key, Row]) -> None:
        room = self._view.membership_room
        if len(blob) > room:
            self._departures.discarded(rows, epoch=0)
            raise CapacityError(
                f"the backends take {len(blob)} bytes of the shared table, which has room for {room}; "
                "use fewer backends or shorter names"
            )
