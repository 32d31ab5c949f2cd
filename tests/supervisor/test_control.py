"""The control socket's server: bounded, never waiting, not impressed by nonsense."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbproc.core.control.codec import Decoder, encode
from lbproc.core.control.messages import (
    CommandLineRequest,
    Message,
    Progress,
    Ready,
    ReloadRequest,
    Reply,
    StatusRequest,
    StopRequest,
)
from lbproc.net.control_socket import ControlListener
from lbproc.supervisor.control import CLIENT_TIMEOUT, MAX_CLIENTS, ControlServer, Respond
from lbproc.telemetry.log import open_error_log
from tests.supervisor.scarcity import no_descriptor_left


class Served:
    """A server in this thread; it turns when told to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.selector = selectors.DefaultSelector()
        self.now = 100.0
        self.requests: list[CommandLineRequest] = []
        self.body: object = "status"
        self.log_path = path.with_suffix(".log")
        self.log = open_error_log(self.log_path, "info", "supervisor")
        self.server = ControlServer(
            ControlListener(path), self.selector, self.answer, lambda: self.now, self.log
        )
        self.clients: list[socket.socket] = []
        self.responds: list[Respond] = []

    def answer(self, request: CommandLineRequest, respond: Respond) -> Reply | None:
        self.requests.append(request)
        if isinstance(request, ReloadRequest):
            self.responds.append(respond)
            if request.dry_run:
                respond(Reply(ok=True, body="at once"))
            return None
        return None if isinstance(request, StopRequest) and request.wait else Reply(ok=True, body=self.body)

    def turn(self) -> None:
        while ready := self.selector.select(0):
            for key, events in ready:
                key.data(events)

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(5)
        client.connect(str(self.path))
        self.clients.append(client)
        return client

    def open_connections(self) -> int:
        return len(self.selector.get_map()) - 1


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path / "control.sock")
    yield served
    if served.path.exists():
        served.server.close()
    for client in served.clients:
        client.close()
    served.selector.close()
    served.log.close()


def read_all(client: socket.socket) -> list[Message]:
    """Everything until the server closes, or until there is nothing more for now."""
    decoder, found = Decoder(), []
    client.setblocking(False)
    try:
        while octets := client.recv(1_000_000):
            decoder.feed(octets)
    except BlockingIOError:
        pass
    while (message := decoder.next_message()) is not None:
        found.append(message)
    return found


def test_requests_are_answered_in_order_on_one_connection(served: Served) -> None:
    client = served.connect()
    client.sendall(encode(StatusRequest()) + encode(StopRequest(now=True, wait=False)))
    served.turn()
    client.sendall(encode(StatusRequest()))
    served.turn()
    assert served.requests[0] == StatusRequest()
    assert len(read_all(client)) >= 2


def test_a_request_may_come_in_portions(served: Served) -> None:
    client = served.connect()
    for octet in encode(StatusRequest()):
        client.sendall(bytes([octet]))
        served.turn()
    assert read_all(client) == [Reply(ok=True, body="status")]


def test_requests_in_one_piece_are_all_answered(served: Served) -> None:
    client = served.connect()
    client.sendall(encode(StatusRequest()) * 2)
    served.turn()
    assert read_all(client) == [Reply(ok=True, body="status")] * 2


@pytest.mark.parametrize(
    "garbage",
    [b"\xff" * 100, b"\x00\x00\x00\x01\xc1", encode(Ready()), b"\x00\x01\x00\x01"],
    ids=["too long", "not msgpack", "no request", "above the bound"],
)
def test_nonsense_is_answered_and_closed(served: Served, garbage: bytes) -> None:
    client = served.connect()
    client.sendall(garbage)
    served.turn()
    (reply,) = read_all(client)
    assert isinstance(reply, Reply)
    assert not reply.ok
    assert served.open_connections() == 0
    assert served.requests == []
    assert "control_request_refused reason=" in served.log_path.read_text()


def test_a_client_that_leaves_is_forgotten(served: Served) -> None:
    client = served.connect()
    client.sendall(b"\x00\x00")
    served.turn()
    client.close()
    served.turn()
    assert served.open_connections() == 0


def test_a_client_that_does_not_read_its_answer_holds_up_nobody_and_is_closed(served: Served) -> None:
    served.body = "x" * 5_000_000
    slow, other = served.connect(), served.connect()
    slow.sendall(encode(StatusRequest()) + encode(StatusRequest()))
    served.turn()
    served.body = "small"
    other.sendall(encode(StatusRequest()))
    served.turn()
    assert read_all(other) == [Reply(ok=True, body="small")]
    assert len(served.requests) == 2, "the second one waits for its turn"
    served.now += CLIENT_TIMEOUT
    served.server.expire()
    assert served.open_connections() == 0


def test_a_long_answer_arrives_whole(served: Served) -> None:
    served.body = "x" * 3_000_000
    client = served.connect()
    client.sendall(encode(StatusRequest()))
    client.setblocking(False)
    decoder = Decoder()
    message = None
    while message is None:
        served.turn()
        try:
            decoder.feed(client.recv(1_000_000))
        except BlockingIOError:
            continue
        message = decoder.next_message()
    assert message == Reply(ok=True, body=served.body)


def test_silent_clients_are_closed_after_a_while_and_those_that_wait_for_the_end_are_not(
    served: Served,
) -> None:
    silent, waiting = served.connect(), served.connect()
    waiting.sendall(encode(StopRequest(now=False, wait=True)))
    served.turn()
    served.now += CLIENT_TIMEOUT - 1
    served.server.expire()
    assert served.open_connections() == 2
    served.now += 1
    served.server.expire()
    assert served.open_connections() == 1
    assert silent.recv(1) == b""
    served.server.close(Reply(ok=True, body="the end"))
    assert read_all(waiting) == [Reply(ok=True, body="the end")]
    assert not served.path.exists()


def test_the_end_reaches_those_who_wait_even_when_one_of_them_has_left(served: Served) -> None:
    gone, waiting = served.connect(), served.connect()
    for client in (gone, waiting):
        client.sendall(encode(StopRequest(now=False, wait=True)))
    served.turn()
    gone.close()
    served.server.close(Reply(ok=True, body="the end"))
    assert read_all(waiting) == [Reply(ok=True, body="the end")]


RELOAD = ReloadRequest("", dry_run=False)


def test_an_answer_may_come_later_and_only_once(served: Served) -> None:
    client = served.connect()
    client.sendall(encode(RELOAD) + encode(StatusRequest()))
    served.turn()
    assert read_all(client) == []
    served.now += CLIENT_TIMEOUT + 1
    served.server.expire()
    served.responds[0](Reply(ok=True, body="done"))
    served.responds[0](Reply(ok=False, body="again"))
    served.turn()
    assert read_all(client) == [Reply(ok=True, body="done"), Reply(ok=True, body="status")]


def test_how_far_it_is_may_be_said_before_the_answer(served: Served) -> None:
    client = served.connect()
    client.sendall(encode(ReloadRequest("", dry_run=False)))
    served.turn()
    (respond,) = served.responds
    assert respond(Progress("far"))
    assert respond(Progress("near"))
    assert read_all(client) == [Progress("far"), Progress("near")]
    client.setblocking(True)
    served.now += 2 * CLIENT_TIMEOUT
    served.server.expire()
    assert respond(Reply(ok=True, body="there"))
    assert not respond(Progress("behind"))
    assert read_all(client) == [Reply(ok=True, body="there")]


def test_whoever_does_not_read_how_far_it_is_misses_some_of_it(served: Served) -> None:
    client = served.connect()
    client.sendall(encode(ReloadRequest("", dry_run=False)))
    served.turn()
    (respond,) = served.responds
    for number in range(10):
        assert respond(Progress("x" * 1_000_000 + str(number)))
    assert respond(Reply(ok=True, body="there"))
    found: list[Message] = []
    decoder = Decoder()
    while not found or not isinstance(found[-1], Reply):
        served.turn()
        decoder.feed(client.recv(1_000_000))
        while (message := decoder.next_message()) is not None:
            found.append(message)
    assert 1 <= len(found) - 1 < 10


def test_whoever_has_left_is_told_nothing(served: Served) -> None:
    client = served.connect()
    client.sendall(encode(ReloadRequest("", dry_run=False)))
    served.turn()
    (respond,) = served.responds
    client.close()
    served.turn()
    assert not respond(Progress("far"))


def test_an_answer_may_come_by_the_function_at_once(served: Served) -> None:
    client = served.connect()
    client.sendall(encode(ReloadRequest("", dry_run=True)) * 2 + encode(StatusRequest()))
    served.turn()
    at_once = Reply(ok=True, body="at once")
    assert read_all(client) == [at_once, at_once, Reply(ok=True, body="status")]


def test_whoever_leaves_or_talks_while_it_waits_gets_no_answer(served: Served) -> None:
    gone, talking = served.connect(), served.connect()
    for client in (gone, talking):
        client.sendall(encode(RELOAD))
        served.turn()
    gone.close()
    talking.sendall(b"x" * 10)
    served.turn()
    assert served.open_connections() == 0
    for respond in served.responds:
        respond(Reply(ok=True, body="done"))
    served.turn()
    assert talking.recv(1) == b""


def test_whoever_waits_for_an_answer_at_the_end_hears_of_it(served: Served) -> None:
    client = served.connect()
    client.sendall(encode(RELOAD))
    served.turn()
    served.server.close(Reply(ok=False, body="the end"))
    assert read_all(client) == [Reply(ok=False, body="the end")]
    served.responds[0](Reply(ok=True, body="too late"))


def test_of_too_many_clients_the_oldest_silent_one_makes_room(served: Served) -> None:
    waiting = served.connect()
    waiting.sendall(encode(StopRequest(now=False, wait=True)))
    served.turn()
    silent = []
    for _ in range(MAX_CLIENTS - 1):
        silent.append(served.connect())
        served.turn()
    late = served.connect()
    late.sendall(encode(StatusRequest()))
    served.turn()
    assert read_all(late) == [Reply(ok=True, body="status")]
    assert served.open_connections() == MAX_CLIENTS
    assert silent[0].recv(1) == b""
    served.server.close(Reply(ok=True, body="the end"))
    assert read_all(waiting) == [Reply(ok=True, body="the end")]


def test_there_are_only_so_many_that_wait_for_the_end(served: Served) -> None:
    for _ in range(MAX_CLIENTS):
        served.connect().sendall(encode(StopRequest(now=False, wait=True)))
        served.turn()
    late = served.connect()
    served.turn()
    assert late.recv(1) == b""
    assert served.open_connections() == MAX_CLIENTS


def test_a_child_closes_its_copies_and_the_file_stays(served: Served) -> None:
    client = served.connect()
    served.turn()
    descriptors = [key.fd for key in served.selector.get_map().values()]
    served.server.close_in_child()
    assert client.recv(1) == b""
    assert served.path.exists()
    assert len(descriptors) == 2


def test_without_descriptors_it_rests_until_the_next_look_and_then_accepts(served: Served) -> None:
    client = served.connect()
    client.sendall(encode(StatusRequest()))
    with no_descriptor_left():
        served.turn()  # would not come back if the socket were looked at again and again
        assert served.selector.select(0) == []
    assert 'accept_paused listener=control reason="Too many open files"' in served.log_path.read_text()
    served.server.expire()
    served.turn()
    assert read_all(client) == [Reply(ok=True, body="status")]


def test_it_can_be_closed_while_it_rests(served: Served) -> None:
    served.connect()
    with no_descriptor_left():
        served.turn()
    served.server.close()
    assert not served.path.exists()
