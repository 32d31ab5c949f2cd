"""Resolves the host names among backend addresses, at once and then again and again.

Owns when names are looked up, and that only changes are told. Does not own what a change leads to. A name
that cannot be resolved keeps the addresses that it had: a name server that is down must not take backends
away.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401  asked for by name in a lookup, when rights to read it may be given up
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

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

    __slots__ = ("_known", "_log", "_lookup", "_names", "_tell", "_urgent", "_woken")

    def __init__(
        self, names: Iterable[TcpAddress], tell: Tell, log: ErrorLog, lookup: Lookup = look_up
    ) -> None:
        self._names = frozenset(names)
        self._tell = tell
        self._log = log
        self._lookup = lookup
        self._known: dict[TcpAddress, list[str]] = {}
        self._urgent: set[TcpAddress] = set()
        self._woken = trio.Event()

    def follow(self, names: Mapping[TcpAddress, bool]) -> None:
        """Resolves these names from now on and no others; those that are new at once.

        Args:
            names: each with whether its addresses are in use. If they are not although they were told, they
                are told again.
        """
        forgotten = {name for name, is_in_use in names.items() if not is_in_use and name in self._known}
        self._urgent = {name for name in self._urgent if name in names}
        self._urgent |= (names.keys() - self._names) | forgotten
        self._names = frozenset(names)
        self._known = {name: found for name, found in self._known.items() if name in names}
        for name in forgotten:
            del self._known[name]
        if self._urgent:
            self._woken.set()

    async def learn(self, names: Iterable[TcpAddress]) -> dict[str, list[str]]:
        """Looks up names that may be followed soon; returns what is known of them, once that is told."""
        wanted = list(names)
        await self._resolve_all(name for name in wanted if name not in self._known)
        return {str(name): self._known[name] for name in wanted if name in self._known}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Resolves for ever; started once the first round is told."""
        await self._resolve_all(self._names)
        task_status.started()
        next_round_at = trio.current_time() + INTERVAL
        while True:
            with trio.move_on_at(next_round_at):
                await self._woken.wait()
            self._woken = trio.Event()
            urgent, self._urgent = self._urgent, set()
            if trio.current_time() >= next_round_at:
                urgent |= self._names
                next_round_at = trio.current_time() + INTERVAL
            await self._resolve_all(urgent)

    async def _resolve_all(self, names: Iterable[TcpAddress]) -> None:
        changed: dict[str, list[str]] = {}
        async with trio.open_nursery() as nursery:
            for name in names:
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
        texts = list(dict.fromkeys(map(str, found)))
        if texts and set(texts) != set(self._known.get(name, ())):
            self._known[name] = changed[str(name)] = texts
            self._log.write(Event.NAME_RESOLVED, name=name.host, addresses=",".join(changed[str(name)]))
