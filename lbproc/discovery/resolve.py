"""Resolves the host names among backend addresses, at once and then again and again.

Owns when names are looked up, and that only changes are told. Does not own what a change leads to. A name
that cannot be resolved keeps the addresses that it had: a name server that is down must not take backends
away.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401  asked for by name in a lookup, when rights to read it may be given up
import socket
from collections.abc import Awaitable, Callable, Sequence

import trio

from lbproc.telemetry.events import Event
from lbproc.telemetry.log import ErrorLog
from lbproc.types import Seconds, TcpAddress

INTERVAL: Seconds = 30.0
LOOKUP_TIMEOUT: Seconds = 5.0
"""After this the round goes on without the name; the system's resolver may take longer to give up."""

Lookup = Callable[[TcpAddress], Awaitable[Sequence[TcpAddress]]]
Tell = Callable[[dict[str, list[str]]], Awaitable[None]]


async def look_up(name: TcpAddress) -> list[TcpAddress]:
    """What the system's resolver says, in its order of preference (RFC 6724).

    Raises:
        OSError: there is no answer (``socket.gaierror``).
    """
    results = await trio.socket.getaddrinfo(name.host, name.port, type=socket.SOCK_STREAM)
    return [TcpAddress(str(sockaddr[0]), name.port) for _, _, _, _, sockaddr in results]


class Resolver:
    """Follows a set of names.

    Args:
        names: what to resolve, with the port that each result gets.
        tell: called with the names that changed, and the addresses of each.
        log: for changes and failures.
        lookup: resolves one name.
    """

    __slots__ = ("_known", "_log", "_lookup", "_names", "_tell")

    def __init__(
        self, names: Sequence[TcpAddress], tell: Tell, log: ErrorLog, lookup: Lookup = look_up
    ) -> None:
        self._names = tuple(names)
        self._tell = tell
        self._log = log
        self._lookup = lookup
        self._known: dict[TcpAddress, frozenset[TcpAddress]] = {}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Resolves for ever; started once the first round is told. Without names it only starts."""
        await self._resolve_all()
        task_status.started()
        while self._names:
            await trio.sleep(INTERVAL)
            await self._resolve_all()

    async def _resolve_all(self) -> None:
        changed: dict[str, list[str]] = {}
        async with trio.open_nursery() as nursery:
            for name in self._names:
                nursery.start_soon(self._resolve, name, changed)
        if changed:
            await self._tell(changed)

    async def _resolve(self, name: TcpAddress, changed: dict[str, list[str]]) -> None:
        try:
            with trio.fail_after(LOOKUP_TIMEOUT):
                found = await self._lookup(name)
        except trio.TooSlowError:
            self._log.write(Event.NAME_RESOLUTION_FAILED, name=name.host, reason="no answer in time")
            return
        # UnicodeError: a label that IDNA cannot encode. LookupError: an encoding's module cannot be read.
        except (OSError, UnicodeError, LookupError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self._log.write(Event.NAME_RESOLUTION_FAILED, name=name.host, reason=reason)
            return
        # Name servers rotate their answers; the same addresses in another order are no news.
        if found and frozenset(found) != self._known.get(name):
            self._known[name] = frozenset(found)
            changed[str(name)] = [str(address) for address in dict.fromkeys(found)]
            self._log.write(Event.NAME_RESOLVED, name=name.host, addresses=",".join(changed[str(name)]))
