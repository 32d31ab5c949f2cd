"""A worker and a controller of a few lines, for tests of the supervisor alone.

The worker accepts on its sockets and does what each connection's first line says. It speaks with the
supervisor as the real one does, without an event loop. Files in a directory of the test make children do
what they should not during a reload: ``prepare-HOW-SLOT`` and ``follow-HOW-SLOT``, where the controller has
the slot ``c``. HOW is refuse, silent, die, hang, or hold: the file is a pipe, which is read to its end before
the answer; or freeze: as hold, and after the answer the child stops as of SIGSTOP.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from lbproc.boot import ControllerBoot, WorkerBoot
from lbproc.core.control.codec import Decoder, encode
from lbproc.core.control.messages import (
    Abandon,
    Adopt,
    Disown,
    Drained,
    DrainSlot,
    Follow,
    Following,
    Lend,
    Message,
    Prepare,
    Prepared,
    Ready,
    Refused,
    Relinquished,
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
        self.listening: dict[Slot, list[tuple[int, socket.socket]]] = {}
        self.lent: dict[int, list[tuple[int, socket.socket]]] = {}
        self.names: dict[int, str] = {}
        self.generation = self.view.generation()
        self.held: set[socket.socket] = set()
        self.stopping = False
        self.reopened = 0

    def run(self) -> int:
        if (self.trouble / f"refuse-{self.boot.slot}").exists():
            raise StartError(f"slot {self.boot.slot} is not in the mood")
        if (self.trouble / f"crash-{self.boot.slot}").exists():
            return 3
        self.watch(self.boot.channel, self.on_channel)
        self.serve(self.boot.slot, [(listener.key, listener.socket) for listener in self.boot.listeners])
        self.view.follow(self.generation)
        self.view.set_state(ProcessState.READY)
        self.tell(Ready())
        while not self.stopping or self.held:
            self.view.beat()
            self.view.follow_membership(self.view.membership_epoch())
            for key, _ in self.selector.select(BEAT):
                # What came first in this round may have closed the others.
                if self.selector.get_map().get(key.fd) is key:
                    key.data()
        return 0

    def watch(self, sock: socket.socket, act: Callable[[], object]) -> None:
        self.selector.register(sock, selectors.EVENT_READ, act)

    def serve(self, slot: Slot, sockets: list[tuple[int, socket.socket]]) -> None:
        self.listening.setdefault(slot, []).extend(sockets)
        for _, sock in sockets:
            self.watch(sock, partial(self.on_connection, sock))
        if self.stopping:
            self.drain(slot)

    def leave(self, slot: Slot) -> None:
        for _, sock in self.listening.pop(slot, []):
            self.selector.unregister(sock)
            sock.close()

    def drain(self, slot: Slot) -> None:
        for _, sock in self.listening.get(slot, []):
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
            case ["reopened" | "generation" as attribute]:
                sock.sendall(f"{getattr(self, attribute)}\n".encode())
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
                sockets = self.take_sockets(message)
                for inbox in sockets[len(listeners) :]:
                    inbox.close()  # nobody hands anything over here
                self.serve(
                    Slot(slot), [(one[0], sock) for one, sock in zip(listeners, sockets, strict=False)]
                )
            case Lend() | Prepare() | Follow() | Abandon():
                self.on_reload(message)
            case DrainSlot(slot):
                self.drain(Slot(slot))
            case Disown(slot):
                self.leave(Slot(slot))
            case Stop(now):
                self.stop(now)
            case ReopenLogs():
                self.reopened += 1
            case _:
                raise AssertionError(message)

    def take_sockets(self, message: Message) -> list[socket.socket]:
        return [socket.socket(fileno=number) for number in self.take_descriptors(message)]

    def take_descriptors(self, message: Message) -> list[int]:
        count = descriptor_count(message)
        taken = self.descriptors[:count]
        del self.descriptors[:count]
        return taken

    def on_reload(self, message: Lend | Prepare | Follow | Abandon) -> None:
        match message:
            case Lend(generation, _, listeners):
                sockets = self.take_sockets(message)
                self.lent.setdefault(generation, []).extend(
                    (one[0], sock) for one, sock in zip(listeners, sockets, strict=True)
                )
            case Prepare(generation, _, names):
                for number in self.take_descriptors(message):
                    os.close(number)
                self.names = dict(names)
                behave(self.trouble, "prepare", self.boot.slot, generation, self.tell, Prepared(generation))
            case Follow(generation):
                answers: list[Message] = [Following(generation), Relinquished(generation)]
                behave(self.trouble, "follow", self.boot.slot, generation, self.follow, *answers)
            case Abandon(generation):
                for _, sock in self.lent.pop(generation, []):
                    sock.close()

    def follow(self, answer: Message) -> None:
        if isinstance(answer, Following):
            self.generation = answer.generation
            self.view.follow(self.generation)
            if not self.stopping:
                self.serve(self.boot.slot, self.lent.pop(self.generation, []))
        else:
            for slot, listening in self.listening.items():
                gone = [sock for key, sock in listening if key not in self.names]
                self.listening[slot] = [(key, sock) for key, sock in listening if key in self.names]
                for sock in gone:
                    while self.on_connection(sock):
                        pass
                    self.selector.unregister(sock)
                    sock.close()
        self.tell(answer)

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


def behave(
    trouble: Path,
    stage: str,
    slot: object,
    generation: int,
    answer: Callable[[Message], None],
    *answers: Message,
) -> None:
    """Answers as it should, or as a file wants it."""
    for file in trouble.glob(f"{stage}-*-{slot}"):
        match file.name.split("-")[1]:
            case "refuse":
                answer(Refused(generation, "not in the mood"))
            case "die":
                os._exit(9)
            case "hang":
                time.sleep(1000)
            case "hold":
                file.read_bytes()
                continue
            case "freeze":
                file.read_bytes()
                for message in answers:
                    answer(message)
                os.kill(os.getpid(), signal.SIGSTOP)
            case _:
                pass  # silent
        return
    for message in answers:
        answer(message)


class SmallController:
    """Says that a name was resolved, and beats until told to leave."""

    def __init__(self, boot: ControllerBoot, trouble: Path) -> None:
        self.boot = boot
        self.trouble = trouble
        self.view = ControllerView(boot.table, boot.column)
        self.decoder = Decoder()

    def run(self) -> int:
        if (self.trouble / "hold-controller").exists():
            (self.trouble / "hold-controller").read_bytes()
        self.view.follow(self.view.reader.generation())
        self.tell(Resolved({"name.test:80": ["10.1.2.3:80"]}))
        self.tell(Ready())
        self.boot.channel.settimeout(BEAT)
        while self.listen():
            self.view.beat()
            self.view.follow_membership(self.view.membership_epoch())
        return 0

    def listen(self) -> bool:
        try:
            octets, descriptors, _, _ = socket.recv_fds(self.boot.channel, 65536, 253)
        except TimeoutError:
            return True
        for number in descriptors:
            os.close(number)
        self.decoder.feed(octets)
        while (message := self.decoder.next_message()) is not None:
            match message:
                case Stop():
                    return False
                case Prepare(generation):
                    behave(self.trouble, "prepare", "c", generation, self.tell, Prepared(generation))
                case Follow(generation):
                    behave(self.trouble, "follow", "c", generation, self.tell, Following(generation))
                case _:
                    pass
        return bool(octets)

    def tell(self, message: Message) -> None:
        if isinstance(message, Following):
            self.view.follow(message.generation)
        self.boot.channel.sendall(encode(message))


def small_controller(trouble: Path, boot: ControllerBoot) -> int:
    return SmallController(boot, trouble).run()
