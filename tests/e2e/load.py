"""Steady load from threads, which counts what it lost and how."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import Self

from tests.e2e.harness_client import RawClient

REQUESTS_PER_CONNECTION = 50


class LoadClient(threading.Thread):
    """One client after the other, each with one or many requests on its connection.

    Attributes:
        answered: responses with status 200.
        refused: connections that were not let in.
        lost: connections that were let in and ended without the response that was awaited.
        wrong: responses with another status.
    """

    def __init__(self, address: str, requests_per_connection: int, stopping: threading.Event) -> None:
        super().__init__(daemon=True)
        self._address = address
        self._requests_per_connection = requests_per_connection
        self._stopping = stopping
        self.answered = 0
        self.refused = 0
        self.lost = 0
        self.wrong: list[int] = []

    def run(self) -> None:
        """Goes on until told to stop."""
        while not self._stopping.is_set():
            try:
                client = RawClient(self._address)
            except OSError:
                self.refused += 1
                continue
            with client:
                self._use(client)

    def _use(self, client: RawClient) -> None:
        for _ in range(self._requests_per_connection):
            try:
                response = client.request()
            except (OSError, AssertionError):
                self.lost += 1
                return
            if response.status == 200:
                self.answered += 1
            else:
                self.wrong.append(response.status)
            if self._stopping.is_set() or response.get("connection") == "close":
                return


class Load:
    """Half of the clients make a connection for each request, half keep theirs."""

    def __init__(self, address: str, clients: int) -> None:
        self._stopping = threading.Event()
        self.clients = [
            LoadClient(address, REQUESTS_PER_CONNECTION if number % 2 else 1, self._stopping)
            for number in range(clients)
        ]

    def __enter__(self) -> Self:
        for client in self.clients:
            client.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        with ExitStack() as joined:
            for client in self.clients:
                joined.callback(client.join, 30)
        assert not any(client.is_alive() for client in self.clients), "a client of the load hangs"

    @property
    def answered(self) -> int:
        """Responses so far."""
        return sum(client.answered for client in self.clients)

    @property
    def refused(self) -> int:
        """Connections that were not let in."""
        return sum(client.refused for client in self.clients)

    @property
    def lost(self) -> int:
        """Connections that ended without the response that was awaited."""
        return sum(client.lost for client in self.clients)

    @property
    def wrong(self) -> list[int]:
        """Statuses other than 200."""
        return [status for client in self.clients for status in client.wrong]
