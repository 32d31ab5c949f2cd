"""Fixtures of the end-to-end tests: each hands out real programs and takes them back, whatever happens.

When a test fails, what its programs said on standard error stands in the report.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.e2e.harness import LbprocServer, Program, web_config
from tests.e2e.harness_backend import Stage
from tests.e2e.harness_client import RawClient
from tests.e2e.harness_dialogue import Proxy
from tests.e2e.harness_nginx import Nginx
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

    from tests.conftest import RequireProgram
    from tests.e2e.harness_backend import Backend

_PROGRAMS = pytest.StashKey[list[Program]]()


Connect = Callable[[str], RawClient]


class StartLbproc(Protocol):
    def __call__(self, config: str, *, clean: bool = True, **options: Any) -> LbprocServer: ...


class StartWeb(Protocol):
    def __call__(
        self, backends: Sequence[Backend | Nginx | str], **options: Any
    ) -> tuple[LbprocServer, str]: ...


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for program in item.stash.get(_PROGRAMS, []):
            report.sections.append((f"standard error of {program.name}", program.stderr()[-20_000:]))
    return report


@pytest.fixture
def programs(request: pytest.FixtureRequest) -> Iterator[Callable[[Program], None]]:
    """Takes programs to be destroyed at the end of the test, and shown if it fails."""
    with ExitStack() as stack:
        shown = request.node.stash.setdefault(_PROGRAMS, [])

        def adopt(program: Program) -> None:
            shown.append(program)
            stack.callback(program.destroy)

        yield adopt


@pytest.fixture
def start_lbproc(tmp_path: Path, programs: Callable[[Program], None]) -> Iterator[StartLbproc]:
    """Starts lbproc on a configuration and waits until it serves.

    ``clean=False`` for tests that provoke a crash; else a traceback anywhere fails the test at its end. Other
    options are those of ``LbprocServer``.
    """
    watched: list[LbprocServer] = []

    def start(config: str, *, clean: bool = True, **options: Any) -> LbprocServer:
        server = LbprocServer(tmp_path, config, **options)
        programs(server)
        server.start()
        if clean:
            watched.append(server)
        return server

    yield start
    for server in watched:
        server.assert_clean()


@pytest.fixture
def start_web(start_lbproc: StartLbproc) -> StartWeb:
    """Starts lbproc with one listener in front of one pool; returns the server and its address.

    Options: ``listener``, ``pool``, ``backend_options``, ``rest`` as in ``web_config``; others as in
    ``start_lbproc``.
    """

    def start(backends: Sequence[Backend | Nginx | str], **options: Any) -> tuple[LbprocServer, str]:
        address = f"127.0.0.1:{free_port()}"
        parts = {
            key: options.pop(key) for key in ("listener", "pool", "backend_options", "rest") if key in options
        }
        texts = [backend if isinstance(backend, str) else backend.address for backend in backends]
        return start_lbproc(web_config(address, texts, **parts), **options), address

    return start


@pytest.fixture
def stage() -> Iterator[Stage]:
    """The loop of recording backends: ``stage.open("a")``."""
    with Stage() as stage:
        yield stage


@pytest.fixture
def start_nginx(
    tmp_path: Path, programs: Callable[[Program], None], require_program: RequireProgram
) -> Callable[[str], Nginx]:
    """Starts a real nginx that answers with the given name."""

    def start(name: str) -> Nginx:
        nginx = Nginx(require_program("nginx"), tmp_path / name, name)
        programs(nginx)
        nginx.start()
        return nginx

    return start


@pytest.fixture
def connect() -> Iterator[Callable[[str], RawClient]]:
    """Opens client connections that are closed at the end of the test."""
    with ExitStack() as stack:
        yield lambda address: stack.enter_context(RawClient(address))


@pytest.fixture(scope="session")
def _shared_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with Proxy(tmp_path_factory.mktemp("conformance")) as proxy:
        yield proxy


@pytest.fixture
def proxy(_shared_proxy: Proxy, request: pytest.FixtureRequest) -> Iterator[Proxy]:
    """One lbproc for all conformance cases, with the test at both ends. Nothing is left of a case."""
    request.node.stash.setdefault(_PROGRAMS, []).append(_shared_proxy.server)
    yield _shared_proxy
    _shared_proxy.hang_up()
    _shared_proxy.assert_clean()


@pytest.fixture(params=[False, True], ids=["fresh", "idle"])
def is_warm(proxy: Proxy, request: pytest.FixtureRequest) -> bool:
    """Runs a case twice: its first request goes over a new backend connection, and over one that lay idle."""
    warm = bool(request.param)
    if warm:
        proxy.warm_up()
    return warm
