"""The demo's own clients: a few keep-alive connections that ask, think, and ask again.

Owns the clients and their counts. A request that fails is counted, and the client goes on with a new
connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from statistics import median

import h11
import trio

from lbproc.types import Seconds

REQUESTS_PER_CONNECTION = 20
"""Then the client connects anew, so that every worker gets its share of connections."""

THINKING: tuple[Seconds, Seconds] = (0.02, 0.1)
ANSWER_TIMEOUT: Seconds = 10.0
PAUSE_AFTER_LOSS: Seconds = 0.2


@dataclass(slots=True)
class Traffic:
    """The clients of one demo.

    Args:
        connect: opens a connection to the balancer.
        host: the Host header.
        generator: where the thinking times come from.
    """

    connect: Callable[[], Awaitable[trio.abc.Stream]]
    host: str
    generator: Random
    answered: int = 0
    failed: int = 0
    latencies: deque[Seconds] = field(default_factory=lambda: deque(maxlen=500))

    async def run(self, clients: int) -> None:
        """Runs so many clients until cancelled."""
        async with trio.open_nursery() as nursery:
            for _ in range(clients):
                nursery.start_soon(self._client)

    def median_latency(self) -> Seconds | None:
        """The median over the latest answers; None before the first."""
        return median(self.latencies) if self.latencies else None

    async def _client(self) -> None:
        while True:
            try:
                await self._one_connection()
            except (OSError, trio.BrokenResourceError, h11.RemoteProtocolError, trio.TooSlowError):
                self.failed += 1
                await trio.sleep(PAUSE_AFTER_LOSS)

    async def _one_connection(self) -> None:
        stream = await self.connect()
        async with stream:
            connection = h11.Connection(h11.CLIENT)
            for _ in range(self.generator.randint(1, 2 * REQUESTS_PER_CONNECTION)):
                if await self._is_lost_while_thinking(stream):
                    await trio.sleep(PAUSE_AFTER_LOSS)
                    return  # nothing was asked on it: no failure
                began_at = trio.current_time()
                with trio.fail_after(ANSWER_TIMEOUT):
                    status = await self._ask(stream, connection)
                self.latencies.append(trio.current_time() - began_at)
                if status >= 500:
                    self.failed += 1
                else:
                    self.answered += 1
                if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                    return  # the balancer closes after this one, as when it stops
                connection.start_next_cycle()

    async def _is_lost_while_thinking(self, stream: trio.abc.Stream) -> bool:
        """Thinks; whether the other side closed the idle connection meanwhile, as it may."""
        with trio.move_on_after(self.generator.uniform(*THINKING)):
            await stream.receive_some()
            return True
        return False

    async def _ask(self, stream: trio.abc.Stream, connection: h11.Connection) -> int:
        request = h11.Request(method="GET", target="/demo", headers=[("Host", self.host)])
        await stream.send_all(
            (connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b"")
        )
        status = 0
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some()))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.EndOfMessage):
                return status
