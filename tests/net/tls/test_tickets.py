"""Sessions go on where the keys of tickets are the same, and nowhere else."""

from __future__ import annotations

import _ssl
import ctypes
import gc
import os
import signal
import ssl
import sys
import sysconfig
import time

import pytest

from lbproc.core.tls.ticket_keys import EPOCH
from lbproc.net.tls import openssl
from lbproc.net.tls.context import load_key_pair
from lbproc.net.tls.openssl import UnknownLayoutError, is_layout_known, set_ticket_keys
from lbproc.net.tls.proof import can_share_tickets
from lbproc.net.tls.tickets import SharedTickets, TicketKeys
from tests.net.tls.pairs import client_context, localhost

pytestmark = pytest.mark.skipif(
    not is_layout_known(), reason="this build of Python is one where keys are not shared"
)

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(scope="module")
def shared() -> SharedTickets:
    tickets = SharedTickets(0.0)
    assert tickets.prove(localhost().chain, localhost().key)
    return tickets


@pytest.fixture(params=VERSIONS, ids=["1.2", "1.3"])
def version(request: pytest.FixtureRequest) -> ssl.TLSVersion:
    found: ssl.TLSVersion = request.param
    return found


def server(version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = version
    load_key_pair(context, localhost().chain, localhost().key)
    return context


def connect(context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> tuple[bool, ssl.SSLSession]:
    """Whether a session was resumed, and the session that a connection leaves."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context().wrap_bio(down, up, server_hostname="localhost", session=session)
    ends = (client, context.wrap_bio(up, down, server_side=True))
    for _ in range(6):
        for end in ends:
            try:
                end.do_handshake()
                end.read(1)
            except ssl.SSLWantReadError:
                continue
    left = client.session
    assert left is not None
    return bool(client.session_reused), left


def test_any_worker_resumes_what_any_other_began(shared: SharedTickets, version: ssl.TLSVersion) -> None:
    contexts = []
    for _ in range(4):
        keys = TicketKeys(shared)
        context = server(version)
        keys.enroll(context, "web\0")
        contexts.append(context)
    _, session = connect(contexts[0])
    assert [connect(context, session)[0] for context in contexts] == [True] * 4


def test_processes_resume_what_others_began(shared: SharedTickets, version: ssl.TLSVersion) -> None:
    context = server(version)
    TicketKeys(shared).enroll(context, "web\0")
    _, session = connect(context)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            other = server(version)
            TicketKeys(shared).enroll(other, "web\0")
            status = 0 if connect(other, session)[0] else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_no_session_goes_on_in_another_domain(shared: SharedTickets, version: ssl.TLSVersion) -> None:
    keys = TicketKeys(shared)
    domains = ["web\0", "web\0required x", "web\0optional x", "api\0"]
    contexts = {domain: server(version) for domain in domains}
    for domain, context in contexts.items():
        keys.enroll(context, domain)
    for domain, context in contexts.items():
        _, session = connect(context)
        found = [other for other in domains if connect(contexts[other], session)[0]]
        assert found == [domain]


def test_every_process_changes_its_keys_at_the_same_epoch(
    shared: SharedTickets, version: ssl.TLSVersion
) -> None:
    early, late = TicketKeys(shared), TicketKeys(shared)
    first, second = server(version), server(version)
    early.enroll(first, "web\0")
    late.enroll(second, "web\0")
    _, session = connect(first)
    early.look(EPOCH)
    assert not connect(first, session)[0]  # one full handshake
    _, session = connect(first)
    assert connect(first, session)[0]
    assert not connect(second, session)[0]
    late.look(2.5 * EPOCH)
    early.look(2.9 * EPOCH)
    _, session = connect(second)
    assert connect(first, session)[0]


def test_those_born_later_begin_with_the_root_of_their_time(version: ssl.TLSVersion) -> None:
    tickets = SharedTickets(0.0)
    assert tickets.prove(localhost().chain, localhost().key)
    old = TicketKeys(tickets)
    before = tickets.root
    tickets.advance(3 * EPOCH)
    assert tickets.root == before.at(3) != before
    young = TicketKeys(tickets)
    first, second = server(version), server(version)
    old.enroll(first, "web\0")
    young.enroll(second, "web\0")
    _, session = connect(first)
    assert not connect(second, session)[0]
    old.look(3 * EPOCH)
    _, session = connect(first)
    assert connect(second, session)[0]


def test_contexts_that_nobody_uses_are_forgotten(shared: SharedTickets) -> None:
    keys = TicketKeys(shared)
    keys.enroll(server(VERSIONS[0]), "web\0")
    gc.collect()
    assert len(keys._domains) == 0
    keys.look(EPOCH)


def test_no_sessions_are_stored_where_tickets_serve(shared: SharedTickets) -> None:
    context = server(ssl.TLSVersion.TLSv1_2)
    TicketKeys(shared).enroll(context, "web\0")
    context.options |= ssl.OP_NO_TICKET  # as for a client that takes none
    _, session = connect(context)
    assert not connect(context, session)[0]
    assert context.session_stats()["number"] == 0


# Where it does not work


def crash(_chain: bytes, _key: bytes) -> bool:
    return bool(ctypes.string_at(0))


def refuse(_chain: bytes, _key: bytes) -> bool:
    raise UnknownLayoutError("what is this?")


def exit_well(_chain: bytes, _key: bytes) -> bool:
    raise SystemExit(0)


@pytest.mark.parametrize("prover", [crash, refuse, exit_well, lambda _chain, _key: False])
def test_what_goes_wrong_in_the_proof_goes_wrong_there(
    prover: object, capfd: pytest.CaptureFixture[str], version: ssl.TLSVersion
) -> None:
    tickets = SharedTickets(0.0)
    assert not tickets.prove(b"", b"", prover)  # type: ignore[arg-type]
    assert tickets.is_proven
    assert not tickets.prove(localhost().chain, localhost().key)  # once is enough
    assert capfd.readouterr() == ("", "")
    # Every context has its own keys then, as OpenSSL makes them.
    keys = TicketKeys(tickets)
    first, second = server(version), server(version)
    for context in (first, second):
        keys.enroll(context, "web\0")
    _, session = connect(first)
    assert connect(first, session)[0]
    assert not connect(second, session)[0]
    keys.look(EPOCH)


def test_a_proof_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lbproc.net.tls.tickets._PATIENCE", 0.05)

    def hang(_chain: bytes, _key: bytes) -> bool:
        time.sleep(60)
        return True

    assert not SharedTickets(0.0).prove(b"", b"", hang)


def test_signals_of_this_process_are_not_the_proofs(monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert SharedTickets(0.0).prove(
        b"", b"", lambda _chain, _key: signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    )
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == blocked


def test_the_proof_needs_a_certificate_that_openssl_takes() -> None:
    with pytest.raises(ssl.SSLError):
        can_share_tickets(b"nonsense", b"nonsense")


def test_keys_of_the_wrong_size_are_refused() -> None:
    with pytest.raises(UnknownLayoutError):
        set_ticket_keys(server(VERSIONS[0]), b"short")


@pytest.mark.parametrize("what", ["debug", "free-threaded", "no library", "static"])
def test_other_builds_of_python_are_left_alone(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    match what:
        case "debug":
            monkeypatch.setattr(sys, "gettotalrefcount", lambda: 0, raising=False)
        case "free-threaded":
            monkeypatch.setattr(sysconfig, "get_config_var", lambda _name: 1)
        case "no library":
            monkeypatch.setattr(_ssl, "__file__", "/nowhere/at/all.so", raising=False)
        case _:
            monkeypatch.delattr(_ssl, "__file__", raising=False)
    openssl._library.cache_clear()
    try:
        if what != "static":
            assert not is_layout_known()
            assert not SharedTickets(0.0).prove(localhost().chain, localhost().key)
        else:
            is_layout_known()  # whatever the program itself holds; the proof has the last word
    finally:
        openssl._library.cache_clear()
