"""A backend of the demo: a small HTTP/1.1 server in its own process that says who it is and what it was sent.

Run as ``python -m lbproc.cli.demo.backend PARENT_PID NAME DESCRIPTOR DELAY_MS``; the listening socket is
inherited. Each answer takes about the delay, so that requests overlap and balancing has something to decide.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import h11
import trio

from lbproc.cli.demo.leash import tie_to_parent

SHOWN_HEADERS = (
    b"host",
    b"x-forwarded-for",
    b"x-forwarded-proto",
    b"x-forwarded-host",
    b"via",
    b"x-request-id",
)


@dataclass(slots=True)
class Backend:
    """One server: its name, its pace, and how many requests it has answered.

    Args:
        name: what it calls itself.
        delay: seconds an answer takes in the middle; each takes between half and one and a half of it.
        generator: where the variation comes from.
    """

    name: str
    delay: float
    generator: random.Random
    answered: int = 0

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Answers the requests of one connection until it ends; an unusable one is dropped."""
        connection = h11.Connection(h11.SERVER)
        try:
            async with stream:
                while await self._serve_one(stream, connection):
                    connection.start_next_cycle()
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            return  # the other side is the balancer under test; it may well be killed

    async def _serve_one(self, stream: trio.abc.Stream, connection: h11.Connection) -> bool:
        """Answers one request; False when there is none, or none can follow."""
        request = None
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                if connection.they_are_waiting_for_100_continue:
                    go_on = h11.InformationalResponse(status_code=100, headers=[])
                    await stream.send_all(connection.send(go_on) or b"")
                connection.receive_data(bytes(await stream.receive_some()))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.EndOfMessage):
                break
            elif not isinstance(event, h11.Data):  # ConnectionClosed, PAUSED
                return False
        assert request is not None
        await trio.sleep(self.delay * self.generator.uniform(0.5, 1.5))
        await stream.send_all(b"".join(self._answer(connection, request)))
        return connection.our_state is h11.DONE

    def _answer(self, connection: h11.Connection, request: h11.Request) -> Iterator[bytes]:
        self.answered += 1
        body = self.describe(request)
        headers = [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("X-Backend", self.name),
        ]
        yield connection.send(h11.Response(status_code=200, reason="OK", headers=headers)) or b""
        if request.method != b"HEAD":
            yield connection.send(h11.Data(data=body)) or b""
        yield connection.send(h11.EndOfMessage()) or b""

    def describe(self, request: h11.Request) -> bytes:
        """The body of an answer: who answers, and the request as it arrived, with what the balancer added."""
        lines = [
            b"Hello from backend %s, its answer number %d.\n" % (self.name.encode(), self.answered),
            b"%s %s" % (request.method, request.target),
            *(b"%s: %s" % (name.title(), value) for name, value in request.headers if name in SHOWN_HEADERS),
        ]
        return b"\n".join(lines) + b"\n"


async def run_backend(backend: Backend, listener: trio.SocketListener) -> None:
    """Serves until SIGTERM."""
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, backend.serve, [listener])
            await anext(aiter(signals))
            nursery.cancel_scope.cancel()


def run_process(arguments: list[str]) -> None:
    """The process: parses what the demo passed and serves."""
    parent_pid, name, descriptor, delay_ms = arguments
    tie_to_parent(int(parent_pid))
    listener = trio.SocketListener(
        trio.socket.fromfd(int(descriptor), trio.socket.AF_INET, trio.socket.SOCK_STREAM)
    )
    os.close(int(descriptor))
    generator = random.Random()  # noqa: S311  # pace, not secrecy
    trio.run(run_backend, Backend(name, int(delay_ms) / 1000, generator), listener)


if __name__ == "__main__":
    run_process(sys.argv[1:])
