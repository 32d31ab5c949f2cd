"""A worker and a controller of a few lines, for tests of the supervisor alone.

The worker accepts on its sockets and does what each connection's first line says. It speaks with the
supervisor as the real one does, without an event loop.
"""

from __future__ import annotations

import os
import selectors
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from lbproc.boot import ControllerBoot, WorkerBoot
from lbproc.core.control.codec import Decoder, encode
from lbproc.core.control.messages import (
    Adopt,
    Disown,
    Drained,
    Message,
    Ready,
    ReopenLogs,
    Resolved,
    Stop,
    descriptor_count,
)
from lbproc.errors import StartError
from lbproc.shm.views import ControllerView, ProcessState, WorkerCounter, WorkerView
from lbproc.types import Slot

BEAT = 0.1


class SmallWorker:
    """Serves until told to stop, then until its held connections are closed."""

    def __init__(self, boot: WorkerBoot, trouble: Path) -> None:
        self.boot = boot
        self.trouble = trouble
        self.view = WorkerView(boot.table, boot.column)
        self.selector = selectors.DefaultSelector()
        self.decoder = Decoder()
        self.descriptors: list[int] = []
        self.listening: dict[Slot, list[socket.socket]] = {}
        self.held: set[socket.socket] = set()
        self.stopping = False
        self.reopened = 0

    def run(self) -> int:
        if (self.trouble / f"refuse-{self.boot.slot}").exists():
            raise StartError(f"slot {self.boot.slot} is not in the mood")
        if (self.trouble / f"crash-{self.boot.slot}").exists():
            return 3
        self.watch(self.boot.channel, self.on_channel)
        self.serve(self.boot.slot, [listener.socket for listener in self.boot.listeners])
        self.view.set_state(ProcessState.READY)
        self.tell(Ready())
        while not self.stopping or self.held:
            self.view.beat()
            for key, _ in self.selector.select(BEAT):
                key.data()
        return 0

    def watch(self, sock: socket.socket, act: Callable[[], object]) -> None:
        self.selector.register(sock, selectors.EVENT_READ, act)

    def serve(self, slot: Slot, sockets: list[socket.socket]) -> None:
        self.listening[slot] = sockets
        for sock in sockets:
            self.watch(sock, partial(self.on_connection, sock))
        if self.stopping:
            self.drain(slot)

    def leave(self, slot: Slot) -> None:
        for sock in self.listening.pop(slot, []):
            self.selector.unregister(sock)
            sock.close()

    def drain(self, slot: Slot) -> None:
        for sock in self.listening[slot]:
            while self.on_connection(sock):
                pass
        self.leave(slot)
        self.tell(Drained(slot))

    def on_connection(self, listening: socket.socket) -> bool:
        try:
            sock, _ = listening.accept()
        except BlockingIOError:
            return False
        sock.settimeout(5)
        words = sock.makefile().readline().split()
        self.view.count(WorkerCounter.REQUESTS)
        self.obey(sock, words)
        return True

    def obey(self, sock: socket.socket, words: list[str]) -> None:
        match words:
            case ["who"]:
                sock.sendall(f"{self.boot.slot} {os.getpid()} {os.getuid()} {os.getgid()}\n".encode())
            case ["descriptors"]:
                links = []
                for entry in sorted(Path("/proc/self/fd").iterdir()):
                    try:
                        links.append(str(entry.readlink()))
                    except FileNotFoundError:
                        continue
                sock.sendall(" ".join(links).encode())
            case ["hold"]:
                self.held.add(sock)
                self.view.count(WorkerCounter.CONNECTIONS)
                self.watch(sock, partial(self.on_held, sock))
                sock.sendall(f"{self.boot.slot}\n".encode())
                return
            case ["take", row]:
                self.view.take(int(row), 100)  # type: ignore[arg-type]
                sock.sendall(b"taken\n")
            case ["hang"]:
                sock.close()
                time.sleep(1000)
            case ["garbage"]:
                self.boot.channel.sendall(b"\xff" * 1000)
            case ["reopened"]:
                sock.sendall(f"{self.reopened}\n".encode())
            case _:
                sock.sendall(b"what\n")
        sock.close()

    def on_held(self, sock: socket.socket) -> None:
        self.selector.unregister(sock)
        sock.close()
        self.held.discard(sock)
        self.view.count(WorkerCounter.CONNECTIONS, -1)

    def on_channel(self) -> None:
        octets, descriptors, _, _ = socket.recv_fds(self.boot.channel, 65536, 253)
        self.descriptors += descriptors
        if not octets:
            self.stop(now=False)
            self.selector.unregister(self.boot.channel)
        self.decoder.feed(octets)
        while (message := self.decoder.next_message()) is not None:
            self.on_message(message)

    def on_message(self, message: Message) -> None:
        match message:
            case Adopt(slot, listeners):
                count = descriptor_count(message)
                sockets = [socket.socket(fileno=number) for number in self.descriptors[:count]]
                del self.descriptors[:count]
                for inbox in sockets[len(listeners) :]:
                    inbox.close()  # nobody hands anything over here
                self.serve(Slot(slot), sockets[: len(listeners)])
            case Disown(slot):
                self.leave(Slot(slot))
            case Stop(now):
                self.stop(now)
            case ReopenLogs():
                self.reopened += 1
            case _:
                raise AssertionError(message)

    def stop(self, now: bool) -> None:
        if now:
            self.held.clear()
        if not self.stopping:
            self.stopping = True
            for slot in list(self.listening):
                self.drain(slot)

    def tell(self, message: Message) -> None:
        try:
            self.boot.channel.sendall(encode(message))
        except OSError:
            self.stopping = True


def small_controller(trouble: Path, boot: ControllerBoot) -> int:
    """Says that a name was resolved, and beats until told to leave."""
    view = ControllerView(boot.table, boot.column)
    if (trouble / "hold-controller").exists():
        (trouble / "hold-controller").read_bytes()
    boot.channel.sendall(encode(Resolved({"name.test:80": ["10.1.2.3:80"]})) + encode(Ready()))
    boot.channel.settimeout(BEAT)
    while True:
        view.beat()
        try:
            octets = boot.channel.recv(65536)
        except TimeoutError:
            continue
        decoder = Decoder()
        decoder.feed(octets)
        if not octets or isinstance(decoder.next_message(), Stop):
            return 0
