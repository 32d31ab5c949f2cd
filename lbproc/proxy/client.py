"""What a worker holds for each connection of a client, whatever is spoken on it.

Owns the seam and nothing else: workers, reloads and cuts know only this, and the listener that made it
(``proxy.listener``). The connections behind it are HTTP's (``proxy.connection``), those that are relayed as
they are (``proxy.tcp``, ``proxy.passthrough``), and those of which it is not known yet what they become.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection

    from lbproc.net.transport import Transport
    from lbproc.proxy.listener import Lineage, StreamListener
    from lbproc.types import Row


class Client(Protocol):
    """One connection of a client, made by ``listener.open``."""

    @property
    def transport(self) -> Transport:
        """To the client."""

    @property
    def listener(self) -> StreamListener:
        """In the form that what is under way began with."""

    @property
    def lineage(self) -> Lineage[Any]:
        """The listener through the generations."""

    async def serve(self) -> None:
        """Serves until the connection ends; closes the transport whatever happens.

        Run in a task of its own, once. What it raises is a defect of lbproc.
        """

    def follow(self) -> bool:
        """Goes on with the newest form of its listener, if nothing is under way that began with another.

        Returns:
            False when something is: it is to be asked again.
        """

    def nudge_idle(self) -> None:
        """Wakes a connection on which nothing is under way, so that it sees that it is to end."""

    def cut(self, rows: Collection[Row]) -> Row | None:
        """Ends what is under way with one of these backends, if it is, and says with which."""
