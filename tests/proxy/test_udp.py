"""Sessions of datagrams: where they go, who is answered, what they hold, and when they end."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
import trio

from lbproc.core.proxy_protocol import ProxyHeader, read_datagram_header, render_v2
from lbproc.core.sessions import QUIET, REMOVED_WITHIN, Stage
from lbproc.proxy.cutting import cut_what_is_out
from lbproc.shm.views import Refusal, WorkerCounter
from lbproc.types import Admin, Health, Row, TcpAddress
from tests.proxy.udp_rig import End, UdpRig
from tests.supervisor.scarcity import no_descriptor_left

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[UdpRig]:
    async with trio.open_nursery() as nursery:
        made = UdpRig(tmp_path, nursery, Random(1))
        yield made
        nursery.cancel_scope.cancel()
    made.close()


async def owner(rig: UdpRig, client: End) -> int:
    """The backend that a client's next datagram comes to."""
    await rig.say(client)
    return rig.owner()


# Ways -------------------------------------------------------------------------------------------------------


async def test_questions_and_answers_find_their_way(rig: UdpRig) -> None:
    worker = rig.start()
    worker.serve(rig.sock)
    client, other = rig.client(), rig.client()
    for asking in (client, other):
        await rig.say(asking, b"from %d" % asking.port)
    for backend in rig.backends:
        ((question, sender),) = backend.received()
        backend.sock.sendto(b"to " + question, sender)
        backend.sock.sendto(b"", sender)
    await rig.settle()
    for asking in (client, other):
        assert asking.received() == [(b"to from %d" % asking.port, rig.address), (b"", rig.address)]
    assert rig.in_flight() == [1, 1]
    assert worker.counted(WorkerCounter.CONNECTIONS) == worker.counted(WorkerCounter.ACCEPTED) == 2
    assert worker.counted(WorkerCounter.DATAGRAMS_IN) == 2
    assert worker.counted(WorkerCounter.DATAGRAMS_OUT) == 4


async def test_many_answers_come_although_one_session_may_not_starve_others(rig: UdpRig) -> None:
    rig.start().serve(rig.sock)
    client = rig.client()
    await rig.say(client)
    ((_, sender),) = [got for backend in rig.backends for got in backend.received()]
    for number in range(100):
        rig.backends[0].sock.sendto(b"%d" % number, sender)
    await rig.settle()
    assert client.datagrams() == [b"%d" % number for number in range(100)]


async def test_empty_and_huge_datagrams_pass(rig: UdpRig) -> None:
    rig.start().serve(rig.sock)
    client = rig.client()
    for datagram in (b"", b"x" * 65507):
        await rig.say(client, datagram)
        ((got, sender),) = [one for backend in rig.backends for one in backend.received()]
        assert got == datagram
        rig.backends[0].sock.sendto(datagram, sender)
        await rig.settle()
        assert client.datagrams() == [datagram]


async def test_strangers_cannot_answer_for_a_backend(rig: UdpRig) -> None:
    rig.start().serve(rig.sock)
    client, stranger = rig.client(), rig.client()
    await rig.say(client)
    ((_, sender),) = [got for backend in rig.backends for got in backend.received()]
    stranger.sock.sendto(b"forged", sender)
    await rig.settle()
    assert client.datagrams() == []


async def test_who_claims_to_be_the_listener_itself_is_not_heard(rig: UdpRig) -> None:
    worker = rig.start()
    worker.serve(rig.sock)
    rig.sock.sendto(b"?", rig.address)
    await rig.settle()
    assert rig.in_flight() == [0, 0]
    assert worker.counted(WorkerCounter.DATAGRAMS_REFUSED) == 1


# Ends -------------------------------------------------------------------------------------------------------


async def test_a_session_ends_when_both_were_silent(rig: UdpRig) -> None:
    worker = rig.start()
    worker.serve(rig.sock)
    client = rig.client()
    await rig.say(client, b"abc")
    ((_, sender),) = rig.backends[0].received()
    for _ in range(3):
        await rig.pass_time(7)
        rig.backends[0].sock.sendto(b"still", sender)
        await rig.settle()
    assert rig.in_flight() == [1, 0]
    await rig.pass_time(10)
    assert rig.in_flight() == [0, 0]
    assert rig.open() == worker.counted(WorkerCounter.CONNECTIONS) == 0
    (line,) = rig.lines()
    assert {key: line[key] for key in ("pool", "listener", "cause", "bytes_in", "bytes_out")} == {
        "pool": "dns", "listener": "dns", "cause": None, "bytes_in": 3, "bytes_out": 15,
    }  # fmt: skip
    assert line["client_ip"] == "127.0.0.1"
    assert line["backend"] == rig.backends[0].address
    assert line["method"] is line["target"] is line["version"] is line["status"] is None


async def test_a_flow_that_comes_again_goes_where_it_was(rig: UdpRig) -> None:
    rig.start().serve(rig.sock)
    clients = [rig.client() for _ in range(6)]
    owners = [await owner(rig, client) for client in clients]
    assert set(owners) == {0, 1}
    await rig.pass_time(11)
    assert rig.in_flight() == [0, 0]
    clients.reverse()
    assert [await owner(rig, client) for client in clients] == owners[::-1]


async def test_what_stops_lets_answers_through_and_begins_nothing(rig: UdpRig) -> None:
    worker = rig.start()
    server = worker.serve(rig.sock)
    client, late = rig.client(), rig.client()
    await rig.say(client)
    ((_, sender),) = rig.backends[0].received()
    server.stop(Stage.STOPPING)
    await rig.say(late)
    rig.backends[0].sock.sendto(b"answer", sender)
    await rig.settle()
    assert client.datagrams() == [b"answer"]
    assert rig.in_flight() == [1, 0]
    assert worker.counted(WorkerCounter.DATAGRAMS_REFUSED) == 1
    assert not worker.ended
    await rig.pass_time(QUIET)
    assert worker.ended == [server]
    assert rig.in_flight() == [0, 0]


async def test_what_is_removed_ends_in_seconds_however_busy(rig: UdpRig) -> None:
    worker = rig.start()
    server = worker.serve(rig.sock)
    client = rig.client()
    await rig.say(client)
    server.stop(Stage.REMOVED)
    for _ in range(8):
        assert not worker.ended
        await rig.say(client)
        await rig.pass_time(REMOVED_WITHIN / 8)
    assert worker.ended == [server]


async def test_a_retired_socket_goes_on_until_its_clients_are_silent(rig: UdpRig) -> None:
    worker = rig.start()
    server = worker.serve(rig.sock)
    client = rig.client()
    await rig.say(client)
    ((_, sender),) = rig.backends[0].received()
    server.stop(Stage.RETIRED)
    await rig.pass_time(8)
    rig.backends[0].sock.sendto(b"late", sender)
    await rig.settle()
    assert client.datagrams() == [b"late"]
    await rig.pass_time(2)
    assert not rig.in_flight()[0]
    await rig.pass_time(1)
    assert worker.ended == [server]


async def test_what_is_left_to_another_worker_answers_only(rig: UdpRig) -> None:
    first, second = rig.start(), rig.start()
    left = first.serve(rig.sock)
    client = rig.client()
    await rig.say(client, b"one")
    ((_, sender),) = rig.backends[0].received()
    left.leave()
    second.serve(rig.sock)
    await rig.say(client, b"two")
    ((question, _),) = rig.backends[0].received()  # the same backend, from another port
    assert question == b"two"
    rig.backends[0].sock.sendto(b"answer to one", sender)
    await rig.settle()
    assert client.datagrams() == [b"answer to one"]
    assert rig.in_flight() == [2, 0]
    await rig.pass_time(10)
    assert first.ended == [left]
    assert not second.ended


async def test_a_server_that_is_cut_leaves_nothing(rig: UdpRig) -> None:
    worker = rig.start()
    worker.serve(rig.sock)
    await rig.say(rig.client())
    worker.scope.cancel()
    await rig.settle()
    assert rig.in_flight() == [0, 0]
    assert rig.open() == 0
    assert [line["cause"] for line in rig.lines()] == ["drain_timeout"]


# Backends ---------------------------------------------------------------------------------------------------


async def test_a_flow_keeps_its_backend_when_another_worker_serves_it(rig: UdpRig) -> None:
    first = rig.start()
    first.serve(rig.sock)
    clients = [rig.client() for _ in range(6)]
    owners = [await owner(rig, client) for client in clients]
    first.scope.cancel()
    await rig.settle()
    second = rig.start()
    second.serve(rig.sock)
    clients.reverse()
    assert [await owner(rig, client) for client in clients] == owners[::-1]
    assert rig.in_flight() == [3, 3]


async def test_a_flow_leaves_a_backend_that_goes_down_and_stays_where_it_went(rig: UdpRig) -> None:
    rig.start().serve(rig.sock)
    client = rig.client()
    assert await owner(rig, client) == 0
    rig.set_health(0, Health.DOWN)
    assert await owner(rig, client) == 1
    assert rig.in_flight() == [0, 1]
    rig.set_health(0, Health.UP)
    assert await owner(rig, client) == 1


async def test_a_drained_backend_keeps_its_sessions_and_gets_no_new_ones(rig: UdpRig) -> None:
    rig.start().serve(rig.sock)
    client = rig.client()
    assert await owner(rig, client) == 0
    rig.set_admin(0, Admin.DRAIN)
    assert await owner(rig, client) == 0
    assert [await owner(rig, rig.client()) for _ in range(3)] == [1, 1, 1]
    await rig.pass_time(11)
    assert await owner(rig, client) == 1


async def test_without_a_backend_nothing_begins_and_what_was_there_ends(rig: UdpRig) -> None:
    worker = rig.start()
    worker.serve(rig.sock)
    client = rig.client()
    await rig.say(client)
    for place in (0, 1):
        rig.set_health(place, Health.DOWN)
    for end in (client, rig.client(), rig.client()):
        await rig.say(end)
    assert rig.in_flight() == [0, 0]
    assert rig.open() == 0
    assert worker.counted(WorkerCounter.DATAGRAMS_REFUSED) == 3
    assert rig.events().count("pool_exhausted") == 1
    assert [line["cause"] for line in rig.lines()] == ["destination_unavailable"]


async def test_what_one_host_turns_away_another_gets(rig: UdpRig) -> None:
    rig.start().serve(rig.sock)
    dead = rig.backends[0]
    dead.close()
    rig.backends[0] = End()
    client = rig.client()
    await rig.say(client, b"asked once")
    assert rig.backends[1].datagrams() == [b"asked once"]
    assert rig.in_flight() == [0, 1]
    assert rig.events().count("backend_unreachable") == 1
    await rig.say(client, b"again")
    assert rig.backends[1].datagrams() == [b"again"]
    await rig.pass_time(11)
    (line,) = rig.lines()
    assert line["retries"] == 1
    assert line["backend"] == rig.backends[1].address


async def test_a_backend_that_dies_under_a_session_takes_no_question_along(rig: UdpRig) -> None:
    rig.start().serve(rig.sock)
    client = rig.client()
    await rig.say(client)
    ((_, sender),) = rig.backends[0].received()
    rig.backends[0].sock.sendto(b"answer", sender)
    await rig.settle()
    rig.backends[0].close()
    rig.backends[0] = End()
    await rig.say(client, b"again")
    assert rig.backends[1].datagrams() == [b"again"]
    await rig.say(client, b"x" * 5000)
    assert rig.backends[1].datagrams() == [b"x" * 5000]
    assert rig.in_flight() == [0, 1]


async def test_a_datagram_too_large_to_be_held_is_lost_with_its_backend(rig: UdpRig) -> None:
    rig.start().serve(rig.sock)
    rig.backends[0].close()
    rig.backends[0] = End()
    client = rig.client()
    await rig.say(client, b"x" * 5000)
    assert rig.backends[1].datagrams() == []
    await rig.say(client, b"again")
    assert rig.backends[1].datagrams() == [b"again"]


async def test_a_lone_backend_that_is_gone_is_asked_again_when_it_is_back(rig: UdpRig) -> None:
    backend = rig.backends[0]
    rig.start(rig.config(backends=[backend.address])).serve(rig.sock)
    address = backend.sock.getsockname()
    backend.close()
    client = rig.client()
    for _ in range(3):
        await rig.say(client)
    assert rig.reader.in_flight(Row(0)) == 1
    back = rig.backends[0] = End(port=address[1])
    await rig.say(client, b"there?")
    assert back.datagrams()[-1:] == [b"there?"]


async def test_a_full_backend_takes_no_more_sessions(rig: UdpRig) -> None:
    ends = [{"address": end.address, "max_connections": 2} for end in rig.backends]
    workers = [rig.start(rig.config(backends=ends)) for _ in range(2)]
    workers[0].serve(rig.sock)
    for _ in range(6):
        await rig.say(rig.client())
    assert rig.in_flight() == [2, 2]
    assert rig.open() == 4
    await rig.pass_time(11)
    assert rig.in_flight() == [0, 0]


async def test_a_backend_that_a_reload_takes_away_loses_its_flows(rig: UdpRig) -> None:
    worker = rig.start()
    worker.serve(rig.sock)
    client, other = rig.client(), rig.client()
    assert [await owner(rig, one) for one in (client, other)] == [0, 1]
    rig.reload(worker, rig.config(backends=[rig.backends[1].address]))
    assert [await owner(rig, one) for one in (client, other)] == [1, 1]
    assert rig.in_flight() == [0, 2]


async def test_a_reload_that_changes_other_things_moves_nobody(rig: UdpRig) -> None:
    worker = rig.start()
    worker.serve(rig.sock)
    client = rig.client()
    await rig.say(client)
    ((_, sender),) = rig.backends[0].received()
    rig.reload(worker, rig.config({"timeouts": {"idle": "2s"}}))
    await rig.say(client)
    assert rig.backends[0].received() == [(b"?", sender)]  # over the same socket
    await rig.pass_time(2)
    assert rig.in_flight() == [0, 0]


async def test_a_longer_silence_that_a_reload_allows_is_remembered_of_flows_that_go_on(rig: UdpRig) -> None:
    first = rig.start()
    first.serve(rig.sock)
    clients = [rig.client() for _ in range(6)]
    owners = [await owner(rig, client) for client in clients]
    config = rig.config({"timeouts": {"idle": "100s"}})
    rig.reload(first, config)
    await rig.say(clients[0])
    rig.backends[owners[0]].received()
    await rig.pass_time(90)
    assert sum(rig.in_flight()) == 6
    rig.kill(first)
    await rig.settle()
    second = rig.start(config)
    second.serve(rig.sock)
    clients.reverse()
    assert [await owner(rig, client) for client in clients] == owners[::-1]


async def test_where_no_way_leads_to_one_backend_another_is_found(rig: UdpRig) -> None:
    worker = rig.start(rig.config(backends=["255.255.255.255:9", rig.backends[1].address]))
    worker.serve(rig.sock)
    await rig.say(rig.client())
    assert rig.backends[1].datagrams() == [b"?"]
    assert rig.in_flight() == [0, 1]
    assert rig.events().count("backend_unreachable") == 1


async def test_a_session_may_be_cut_when_its_backend_goes_out_of_use(rig: UdpRig) -> None:
    worker = rig.start(rig.config(on_down="cut"))
    server = worker.serve(rig.sock)
    clients = [rig.client() for _ in range(4)]
    owners = [await owner(rig, client) for client in clients]
    rig.set_health(0, Health.DOWN)
    assert cut_what_is_out(worker.context.runtime, server.sessions, rig.log) == owners.count(0) == 2
    await rig.settle()
    assert rig.in_flight() == [0, 2]
    assert [await owner(rig, client) for client in clients] == [1, 1, 1, 1]
    assert [line["cause"] for line in rig.lines()] == ["destination_unavailable"] * 2


async def test_without_a_descriptor_a_datagram_is_dropped_and_told(rig: UdpRig) -> None:
    worker = rig.start()
    worker.serve(rig.sock)
    client = rig.client()
    with no_descriptor_left():
        for _ in range(3):
            await rig.say(client)
    assert rig.in_flight() == [0, 0]
    assert rig.open() == 0
    assert worker.counted(WorkerCounter.ACCEPT_PAUSES) == worker.counted(WorkerCounter.DATAGRAMS_REFUSED) == 3
    assert rig.events().count("accept_paused") == 1
    await rig.say(client)
    assert sum(rig.in_flight()) == 1


# Limits -----------------------------------------------------------------------------------------------------


async def test_no_more_sessions_than_the_listener_lets_in_over_all_workers(rig: UdpRig) -> None:
    config = rig.config({"max_connections": 5})
    first, second = rig.start(config), rig.start(config)
    left = first.serve(rig.sock)
    for number in range(10):
        if number == 3:
            left.leave()
            second.serve(rig.sock)
        await rig.say(rig.client(f"127.0.0.{number + 1}"))
    assert rig.open() == sum(rig.in_flight()) == 5
    assert rig.refused(Refusal.MAX_CONNECTIONS) == 5
    assert rig.events().count("connection_refused") == 1
    await rig.pass_time(11)
    assert rig.open() == sum(rig.in_flight()) == 0


async def test_without_a_number_sessions_are_limited_all_the_same(rig: UdpRig) -> None:
    assert rig.config().listeners["dns"].most_connections == 10_000


async def test_sessions_of_one_address_are_limited(rig: UdpRig) -> None:
    rig.start(rig.config({"limits": ["each"]}, limits={"each": {"connections": 2}})).serve(rig.sock)
    for _ in range(4):
        await rig.say(rig.client())
    assert rig.open() == 2
    assert rig.refused(Refusal.CONNECTIONS) == 2
    await rig.say(rig.client("127.0.0.2"))
    assert rig.open() == 3


# PROXY headers ----------------------------------------------------------------------------------------------


async def test_each_datagram_to_a_backend_says_whose_it_is(rig: UdpRig) -> None:
    rig.start(rig.config(proxy_protocol="v2")).serve(rig.sock)
    client = rig.client()
    for question in (b"one", b"two"):
        await rig.say(client, question)
    said = [read_datagram_header(datagram) for datagram in rig.backends[0].datagrams()]
    assert [rest for _, rest in said] == [b"one", b"two"]
    for header, _ in said:
        assert header.is_datagram
        assert header.source == TcpAddress("127.0.0.1", client.port)
        assert header.destination == TcpAddress(*rig.address)
        assert len(header.fields.unique_id) == 32
    assert said[0][0] == said[1][0]


async def test_a_trusted_proxy_says_whose_a_session_is(rig: UdpRig) -> None:
    listener = {"proxy_protocol": True, "trusted_proxies": ["127.0.0.1/32"]}
    worker = rig.start(rig.config(listener, proxy_protocol="v2"))
    worker.serve(rig.sock)
    source, there = TcpAddress("192.0.2.7", 4000), TcpAddress("198.51.100.1", 53)
    header = render_v2(ProxyHeader(source, there, is_datagram=True))
    client, stranger = rig.client(), rig.client("127.0.0.2")
    await rig.say(client, b"no header")
    await rig.say(stranger, header + b"forged")
    assert worker.counted(WorkerCounter.REJECTED) == 2
    assert rig.in_flight() == [0, 0]
    assert rig.events().count("proxy_header_rejected") == 1
    await rig.say(client, header + b"one")
    await rig.say(client, b"two")
    await rig.say(client, header + b"three")
    said = [read_datagram_header(datagram) for datagram in rig.backends[0].datagrams()]
    assert [rest for _, rest in said] == [b"one", b"two", b"three"]
    assert {(header.source, header.destination) for header, _ in said} == {(source, there)}
    await rig.pass_time(11)
    assert [line["client_ip"] for line in rig.lines()] == ["192.0.2.7"]
