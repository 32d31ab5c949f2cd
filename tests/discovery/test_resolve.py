"""Names are resolved at once and again; only news are told; what fails keeps what was known."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import trio
import trio.testing

from lbproc.discovery.resolve import INTERVAL, LOOKUP_TIMEOUT, Resolver, look_up
from lbproc.telemetry.log import ErrorLog, open_error_log
from lbproc.types import TcpAddress

A, B = TcpAddress("a.test", 80), TcpAddress("b.test", 81)
ONE, TWO = TcpAddress("10.0.0.1", 80), TcpAddress("fd00::1", 80)

Answers = dict[TcpAddress, Sequence[TcpAddress] | Exception | None]


class Scene:
    """A resolver whose answers are set by the test."""

    def __init__(self, log: ErrorLog, *names: TcpAddress) -> None:
        self.answers: Answers = dict.fromkeys(names, ())
        self.told: list[dict[str, list[str]]] = []
        self.resolver = Resolver(names, self.tell, log, self.lookup)

    async def tell(self, addresses: dict[str, list[str]]) -> None:
        self.told.append(addresses)

    async def lookup(self, name: TcpAddress) -> Sequence[TcpAddress]:
        answer = self.answers[name]
        if answer is None:
            await trio.sleep_forever()
        if isinstance(answer, Exception):
            raise answer
        assert answer is not None
        return answer


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    return tmp_path / "error.log"


@pytest.fixture
def log(log_path: Path) -> Iterator[ErrorLog]:
    log = open_error_log(log_path, "info", "controller")
    yield log
    log.close()


async def test_the_first_round_is_told_before_the_start_is_over(
    log: ErrorLog, autojump_clock: trio.testing.MockClock
) -> None:
    scene = Scene(log, A, B)
    scene.answers = {A: (ONE, TWO, ONE), B: (TcpAddress("10.0.0.9", 81),)}
    async with trio.open_nursery() as nursery:
        await nursery.start(scene.resolver.run)
        assert scene.told == [{"a.test:80": ["10.0.0.1:80", "[fd00::1]:80"], "b.test:81": ["10.0.0.9:81"]}]
        nursery.cancel_scope.cancel()


async def test_only_changes_are_told_and_rotation_is_none(
    log: ErrorLog, autojump_clock: trio.testing.MockClock
) -> None:
    scene = Scene(log, A)
    scene.answers = {A: (ONE, TWO)}
    async with trio.open_nursery() as nursery:
        await nursery.start(scene.resolver.run)
        scene.answers = {A: (TWO, ONE)}
        await trio.sleep(INTERVAL + 1)
        assert len(scene.told) == 1
        scene.answers = {A: (TWO,)}
        await trio.sleep(INTERVAL)
        assert scene.told[1:] == [{"a.test:80": ["[fd00::1]:80"]}]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "failure",
    [
        socket.gaierror(-2, "Name or service not known"),
        UnicodeError("label too long"),
        LookupError("unknown encoding: idna"),
        OSError("broken"),
        (),
    ],
)
async def test_a_name_that_fails_keeps_what_was_known_and_others_go_on(
    failure: Exception | Sequence[TcpAddress],
    log: ErrorLog,
    log_path: Path,
    autojump_clock: trio.testing.MockClock,
) -> None:
    scene = Scene(log, A, B)
    scene.answers = {A: (ONE,), B: failure}
    async with trio.open_nursery() as nursery:
        await nursery.start(scene.resolver.run)
        assert scene.told == [{"a.test:80": ["10.0.0.1:80"]}]
        scene.answers = {A: failure, B: (TWO,)}
        await trio.sleep(INTERVAL + 1)
        assert scene.told[1:] == [{"b.test:81": ["[fd00::1]:80"]}]
        scene.answers = {A: (ONE,), B: (TWO,)}
        await trio.sleep(INTERVAL)
        assert len(scene.told) == 2
        nursery.cancel_scope.cancel()
    text = log_path.read_text()  # noqa: ASYNC240 - a file of a few lines
    assert ("name_resolution_failed name=b.test" in text) == isinstance(failure, Exception)
    assert "name_resolved name=a.test addresses=10.0.0.1:80" in text


async def test_a_name_server_that_is_silent_does_not_hold_up_the_start(
    log: ErrorLog, autojump_clock: trio.testing.MockClock
) -> None:
    scene = Scene(log, A, B)
    scene.answers = {A: None, B: (ONE,)}
    started_at = trio.current_time()
    async with trio.open_nursery() as nursery:
        await nursery.start(scene.resolver.run)
        assert trio.current_time() - started_at == LOOKUP_TIMEOUT
        assert scene.told == [{"b.test:81": ["10.0.0.1:80"]}]
        nursery.cancel_scope.cancel()


async def test_names_that_come_are_looked_up_at_once_and_others_when_their_time_comes(
    log: ErrorLog, autojump_clock: trio.testing.MockClock
) -> None:
    scene = Scene(log)
    scene.answers = {A: (ONE,), B: (TWO,)}
    async with trio.open_nursery() as nursery:
        await nursery.start(scene.resolver.run)
        assert scene.told == []
        scene.resolver.follow({A: False})
        await trio.sleep(0.1)
        assert scene.told == [{"a.test:80": ["10.0.0.1:80"]}]
        scene.answers[A] = (TWO,)
        scene.resolver.follow({A: True, B: False})
        await trio.sleep(0.1)
        assert scene.told[1:] == [{"b.test:81": ["[fd00::1]:80"]}]
        await trio.sleep(INTERVAL - 1)
        assert len(scene.told) == 2
        await trio.sleep(1)
        assert scene.told[2:] == [{"a.test:80": ["[fd00::1]:80"]}]
        nursery.cancel_scope.cancel()


async def test_a_name_that_goes_is_looked_up_no_more_and_anew_when_it_is_back(
    log: ErrorLog, autojump_clock: trio.testing.MockClock
) -> None:
    scene = Scene(log, A)
    scene.answers = {A: (ONE,)}
    async with trio.open_nursery() as nursery:
        await nursery.start(scene.resolver.run)
        scene.resolver.follow({})
        del scene.answers[A]
        await trio.sleep(2 * INTERVAL)
        scene.answers[A] = (ONE,)
        scene.resolver.follow({A: False})
        await trio.sleep(0.1)
        assert scene.told == [{"a.test:80": ["10.0.0.1:80"]}] * 2
        nursery.cancel_scope.cancel()


async def test_what_was_told_and_is_not_in_use_is_told_again(
    log: ErrorLog, autojump_clock: trio.testing.MockClock
) -> None:
    scene = Scene(log, A, B)
    scene.answers = {A: (ONE,), B: ()}
    async with trio.open_nursery() as nursery:
        await nursery.start(scene.resolver.run)
        scene.resolver.follow({A: False, B: False})  # of B there is nothing to tell
        scene.answers[B] = (TWO,)
        await trio.sleep(0.1)
        assert scene.told == [{"a.test:80": ["10.0.0.1:80"]}] * 2
        nursery.cancel_scope.cancel()


async def test_names_of_what_may_come_are_looked_up_and_told_before(
    log: ErrorLog, autojump_clock: trio.testing.MockClock
) -> None:
    scene = Scene(log, A)
    scene.answers = {A: (ONE, TWO), B: ()}
    async with trio.open_nursery() as nursery:
        await nursery.start(scene.resolver.run)
        assert await scene.resolver.learn((A, B)) == {"a.test:80": ["10.0.0.1:80", "[fd00::1]:80"]}
        scene.answers[B] = (TWO,)
        assert (await scene.resolver.learn((B,))) == {"b.test:81": ["[fd00::1]:80"]}
        assert scene.told[1:] == [{"b.test:81": ["[fd00::1]:80"]}]
        nursery.cancel_scope.cancel()


async def test_the_systems_resolver_is_asked() -> None:
    found = await look_up(TcpAddress("localhost", 8000))
    assert found
    assert {address.port for address in found} == {8000}
    assert {address.host for address in found} <= {"127.0.0.1", "::1"}
