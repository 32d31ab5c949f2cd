"""Datagram clients and backends for the tests of UDP listeners."""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from tests.e2e.harness import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable


class UdpBackend:
    """Answers each datagram with its name, a blank, and what came; in a thread of its own.

    Args:
        name: of the backend.
        port: 0: any.
        answer: makes the answers instead; None for none.
    """

    def __init__(
        self, name: str, port: int = 0, answer: Callable[[bytes], bytes | None] | None = None
    ) -> None:
        self.name = name
        self.received: list[tuple[bytes, tuple[str, int]]] = []
        self._answer = answer or (lambda datagram: name.encode() + b" " + datagram)
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind(("127.0.0.1", port))
        self._sock.settimeout(0.05)
        self.port: int = self._sock.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def say(self, datagram: bytes, to: tuple[str, int]) -> None:
        """Sends something that nobody has asked for."""
        self._sock.sendto(datagram, to)

    def close(self) -> None:
        """Dies. From now on its host says that nobody listens there."""
        if not self._is_closing:
            self._is_closing = True
            self._thread.join()
            self._sock.close()

    def _run(self) -> None:
        while not self._is_closing:
            try:
                datagram, sender = self._sock.recvfrom(65536)
            except TimeoutError:
                continue
            except ConnectionRefusedError:  # whoever asked is gone
                continue
            self.received.append((datagram, sender))
            answer = self._answer(datagram)
            if answer is not None:
                with suppress(OSError):  # it may be larger than a datagram can be
                    self._sock.sendto(answer, sender)


class UdpClient:
    """A client with one port, which knows who answers: only the address that it asked.

    Args:
        port: of the listener.
        host: of the listener.
        source: the address of the client.
    """

    def __init__(self, port: int, host: str = "127.0.0.1", source: str = "") -> None:
        self.sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        if source:
            self.sock.bind((source, 0))
        self.sock.connect((host, port))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, datagram: bytes = b"?") -> None:
        """Sends without waiting."""
        self.sock.send(datagram)

    def receive(self, within: float = 20.0) -> bytes | None:
        """The next answer; None if there is none in time."""
        ready, _, _ = select.select([self.sock], [], [], within)
        return self.sock.recv(65536) if ready else None

    def ask(self, datagram: bytes = b"?", within: float = 20.0) -> bytes:
        """Sends, and gives the answer; asks again after a second, as clients of UDP do."""
        answer: list[bytes] = []

        def has_answer() -> bool:
            self.send(datagram)
            got = self.receive(1.0)
            if got is not None:
                answer.append(got)
            return got is not None

        wait_until(has_answer, f"an answer to {datagram[:40]!r}", within)
        return answer[0]

    def owner(self) -> str:
        """The name of the backend that answers."""
        return self.ask().split(b" ")[0].decode()
