"""Expectations that nobody answers: who has waited for whom, seen at both ends of a real lbproc.

The listener and pool named "hasty" wait 0.4 s for everything. Nothing here measures how long it took.
"""

from __future__ import annotations

import pytest

from tests.e2e.harness_dialogue import END, GET, OK, POST, End, Manner, Proxy, assert_refused

EXPECTING = POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
EARLY_HINTS = b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n"

both_paths = pytest.mark.parametrize("warm", [False, True], ids=["fresh", "idle"])


@pytest.mark.usefixtures("is_warm")
@pytest.mark.parametrize("manner", Manner, ids=lambda manner: manner.name.lower())
@pytest.mark.parametrize(
    "head", [GET, POST, POST + b"Content-Length: 0\r\n"], ids=["GET", "POST", "length of 0"]
)
def test_request_without_content_is_whole_with_its_head(proxy: Proxy, head: bytes, manner: Manner) -> None:
    client = proxy.client()
    backend = None
    for _ in range(3):  # deadlines are far away: who waited for a 100 or a body would hang here
        client.send(head + b"Expect: 100-continue\r\n\r\n", manner)
        backend = backend or proxy.backend()
        assert b"\r\nExpect:" not in backend.read_head()
        backend.send(OK)
        assert client.read_exactly(len(OK)) == OK


@pytest.mark.slow
@both_paths
def test_backend_that_owes_a_100_is_late_whatever_else_it_says(proxy: Proxy, warm: bool) -> None:
    waiting = []
    for sent in (b"", EARLY_HINTS, EARLY_HINTS * 2):
        if warm:
            proxy.warm_up("hasty")
        client = proxy.client("hasty").send(EXPECTING)
        backend = proxy.backend("hasty")
        backend.read_head()
        backend.send(sent)
        waiting.append((client, backend, sent))
    for client, backend, sent in waiting:
        assert client.read_exactly(len(sent)) == sent
        answer, end = client.read_rest()
        assert_refused(answer, 504, "http_response_timeout")
        assert end is End.CLOSED
        assert backend.read_rest()[0] == b""


@pytest.mark.slow
@both_paths
def test_client_that_got_its_100_is_late(proxy: Proxy, warm: bool) -> None:
    waiting = []
    for sent in (CONTINUE, EARLY_HINTS + CONTINUE, CONTINUE + EARLY_HINTS):
        if warm:
            proxy.warm_up("hasty")
        client = proxy.client("hasty").send(EXPECTING)
        backend = proxy.backend("hasty")
        backend.read_head()
        backend.send(sent)
        waiting.append((client, backend, sent))
    for client, backend, sent in waiting:
        assert client.read_exactly(len(sent)) == sent
        answer, end = client.read_rest()
        assert_refused(answer, 408)
        assert end is End.CLOSED
        assert backend.read_rest()[0] == b""


@pytest.mark.usefixtures("is_warm")
def test_answer_of_lbprocs_own_comes_at_once(proxy: Proxy) -> None:
    client = proxy.client("small")
    client.send(POST + b"Expect: 100-continue\r\nContent-Length: 101\r\n\r\n")
    assert_refused(client.read_rest()[0], 413)
    client = proxy.client("nowhere")
    client.send(EXPECTING)
    answer, _ = client.read_rest()
    assert_refused(answer, 404, "destination_not_found")
    client.send(b"hi" + GET + END)
    proxy.settle()
    assert not proxy.backends_waiting()
