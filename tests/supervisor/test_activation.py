"""Sockets that were opened by whoever started lbproc."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbproc.errors import StartError
from lbproc.net.sockaddr import bound_address
from lbproc.supervisor.activation import PassedSockets
from lbproc.types import TcpAddress, UnixAddress

PID = 4242
FIRST = 200
"""Where descriptors are passed in these tests: 3 and what follows belongs to the test runner."""


class Passing:
    """Puts descriptors where a new process would find them."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []
        self.taken: list[PassedSockets] = []

    def tcp(self, host: str = "127.0.0.1", *, both: bool = False, listening: bool = True) -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        if ":" in host:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both)
        sock.bind((host, 0))
        if listening:
            sock.listen(5)
        return self.keep(sock)

    def unix(self, path: str, kind: int = socket.SOCK_STREAM) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, kind)
        sock.bind(path)
        if kind == socket.SOCK_STREAM:
            sock.listen(5)
        return self.keep(sock)

    def keep(self, sock: socket.socket) -> socket.socket:
        self.sockets.append(sock)
        return sock

    def take(self, names: str = "", **other: str) -> PassedSockets:
        for number, sock in enumerate(self.sockets):
            os.dup2(sock.fileno(), FIRST + number)
        environ = {
            "LISTEN_FDS": str(len(self.sockets)),
            "LISTEN_PID": str(PID),
            "LISTEN_FDNAMES": names,
            **other,
        }
        try:
            passed = PassedSockets.take_from(environ, PID, FIRST)
        finally:
            assert environ == {}
        self.taken.append(passed)
        return passed

    def open_descriptors(self) -> list[int]:
        found = []
        for number in range(len(self.sockets)):
            try:
                os.fstat(FIRST + number)
            except OSError:
                continue
            found.append(number)
        return found

    def close(self) -> None:
        for passed in self.taken:
            passed.close()
        for number, sock in enumerate(self.sockets):
            sock.close()
            try:
                os.close(FIRST + number)
            except OSError:
                continue


@pytest.fixture
def passing() -> Iterator[Passing]:
    passing = Passing()
    yield passing
    passing.close()


def test_each_is_found_by_its_address(passing: Passing, tmp_path: Path) -> None:
    web, unix = passing.tcp(), passing.unix(str(tmp_path / "web.sock"))
    passed = passing.take("web:admin")
    assert passed.addresses == {bound_address(web), UnixAddress(str(tmp_path / "web.sock"))}
    assert len(passed) == 2
    copy = passed.find(bound_address(web))
    assert copy is not None
    passed.close()
    assert passing.open_descriptors() == []
    with copy, socket.create_connection(web.getsockname()) as client:
        assert not copy.get_inheritable()
        accepted, peer = copy.accept()
        accepted.close()
        assert peer == client.getsockname()
    assert unix.fileno() >= 0
    assert passed.find(TcpAddress("127.0.0.1", 1)) is None


def test_nothing_was_passed() -> None:
    environ = {"PATH": "/bin"}
    passed = PassedSockets.take_from(environ, PID)
    passed.require_named([])
    assert (len(passed), environ) == (0, {"PATH": "/bin"})


@pytest.mark.parametrize("other", [{"LISTEN_PID": "1"}, {"LISTEN_PID": ""}, {"LISTEN_FDS": "many"}])
def test_what_was_passed_to_another_process_is_not_ours(other: dict[str, str], passing: Passing) -> None:
    passing.tcp()
    passed = passing.take(**other)
    assert len(passed) == 0
    assert passing.open_descriptors() == [0]


def test_a_socket_that_no_listener_names_refuses_the_start(passing: Passing) -> None:
    named, forgotten = bound_address(passing.tcp()), bound_address(passing.tcp())
    passed = passing.take("a:b")
    with pytest.raises(StartError, match=f'{forgotten} \\(b\\) was passed .* bind = "{forgotten}"') as caught:
        passed.require_named([named])
    assert str(named) not in str(caught.value)
    passed.require_named([named, forgotten, TcpAddress("127.0.0.1", 1)])


def test_a_unit_that_takes_every_address_is_told_how_to_take_ipv4(passing: Passing) -> None:
    port = bound_address(passing.tcp("::", both=True)).port
    passed = passing.take()
    with pytest.raises(StartError, match=f"ListenStream=0.0.0.0:{port}"):
        passed.require_named([TcpAddress("0.0.0.0", port)])


def test_what_cannot_be_listened_on_refuses_the_start(passing: Passing, tmp_path: Path) -> None:
    passing.tcp()
    passing.unix(str(tmp_path / "datagrams"), socket.SOCK_DGRAM)
    with pytest.raises(StartError, match=r"datagrams .* does not listen for connections"):
        passing.take("web:datagrams")
    assert 0 not in passing.open_descriptors()


def test_a_connection_instead_of_a_listening_socket_refuses_the_start(passing: Passing) -> None:
    passing.tcp(listening=False)
    with pytest.raises(StartError, match="Accept=no"):
        passing.take()


def test_an_abstract_socket_has_no_address_that_a_listener_could_have(passing: Passing) -> None:
    passing.unix(f"\0lbproc-test-{os.getpid()}")
    with pytest.raises(StartError, match="neither a TCP socket nor a Unix socket with a path"):
        passing.take()


def test_two_for_one_address_refuse_the_start(passing: Passing) -> None:
    passing.keep(passing.tcp().dup())
    with pytest.raises(StartError, match=r"two sockets for 127\.0\.0\.1"):
        passing.take()
    assert passing.open_descriptors() == []


def test_a_file_and_a_descriptor_that_is_not_there_refuse_the_start(tmp_path: Path) -> None:
    environ = {"LISTEN_FDS": "1", "LISTEN_PID": str(PID)}
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(StartError, match="is not a socket"):
            PassedSockets.take_from(dict(environ), PID, descriptor)
    finally:
        os.close(descriptor)
    with pytest.raises(StartError, match="cannot be used: Bad file descriptor"):
        PassedSockets.take_from(dict(environ), PID, 999)
