"""Conversations of several steps: expectations, pipelining, early answers, ends, and second tries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.harness_dialogue import (
    END,
    GET,
    KNOWN,
    OK,
    POST,
    SMUGGLED,
    End,
    Manner,
    assert_refused,
    canonical,
)

if TYPE_CHECKING:
    from tests.e2e.harness_dialogue import Proxy, Wire

S200 = b"HTTP/1.1 200 OK\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
EXPECTING = POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
CLOSING_OK = S200 + b"Content-Length: 2\r\nConnection: close\r\n\r\n"


def serve(backend: Wire, client: Wire) -> None:
    """Answers what stands at the backend, and the client gets it."""
    assert backend.read_head()
    backend.send(OK)
    assert client.read_exactly(len(OK)) == OK


# Expectations: RFC 9110 section 10.1.1 ----------------------------------------------------------------------


@pytest.mark.usefixtures("is_warm")
@pytest.mark.parametrize("manner", Manner, ids=lambda manner: manner.name.lower())
def test_client_that_waits_for_100_gets_it_from_the_backend(proxy: Proxy, manner: Manner) -> None:
    client = proxy.client()
    backend = None
    for _ in range(3):
        client.send(EXPECTING, manner)
        backend = backend or proxy.backend()
        assert b"\r\nExpect: 100-continue\r\n" in backend.read_head()
        proxy.settle()
        client.assert_silent()  # lbproc does not promise what the backend has to keep
        backend.send(CONTINUE)
        assert client.read_head() == CONTINUE
        client.send(b"hi", manner)
        assert backend.read_exactly(2) == b"hi"
        backend.send(OK)
        assert client.read_exactly(len(OK)) == OK


@pytest.mark.usefixtures("is_warm")
def test_expectation_with_chunks_is_passed_on(proxy: Proxy) -> None:
    client = proxy.client()
    client.send(POST + b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
    backend = proxy.backend()
    assert b"\r\nExpect: 100-continue\r\n" in backend.read_head()
    backend.send(CONTINUE)
    assert client.read_head() == CONTINUE
    client.send(b"2\r\nhi\r\n0\r\n\r\n")
    assert backend.read_exactly(12) == b"2\r\nhi\r\n0\r\n\r\n"
    backend.send(OK)
    assert client.read_exactly(len(OK)) == OK


@pytest.mark.usefixtures("is_warm")
@pytest.mark.parametrize("status", [b"417 Expectation Failed", b"200 OK", b"401 Who", b"413 Large"])
def test_final_answer_instead_of_100_reaches_the_client_and_its_connection_ends(
    proxy: Proxy, status: bytes
) -> None:
    client = proxy.client()
    client.send(EXPECTING)
    backend = proxy.backend()
    backend.read_head()
    backend.send(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nno")
    head = client.read_head()
    assert head.startswith(b"HTTP/1.1 " + status)
    assert b"\r\nConnection: close\r\n" in head  # whether the body comes or not cannot be told
    assert client.read_rest() == (b"no", End.CLOSED)
    client.send(GET + END)
    assert backend.read_rest()[0] == b""
    proxy.settle()
    assert not proxy.backends_waiting()


@pytest.mark.usefixtures("is_warm")
def test_client_that_does_not_wait_for_100_is_served_too(proxy: Proxy) -> None:
    client = proxy.client()
    client.send(EXPECTING)
    backend = proxy.backend()
    backend.read_head()
    client.send(b"hi" + GET + END)
    assert backend.read_exactly(2) == b"hi"
    backend.send(CONTINUE + OK)
    assert client.read_exactly(len(CONTINUE + OK)) == CONTINUE + OK
    serve(backend, client)


def test_backend_that_answers_100_twice_is_passed_on(proxy: Proxy) -> None:
    client = proxy.client()
    client.send(EXPECTING)
    backend = proxy.backend()
    backend.read_head()
    backend.send(CONTINUE * 2)
    assert client.read_exactly(len(CONTINUE * 2)) == CONTINUE * 2
    client.send(b"hi")
    assert backend.read_exactly(2) == b"hi"
    backend.send(OK)
    assert client.read_exactly(len(OK)) == OK


# Pipelining: RFC 9112 section 9.3.2 -------------------------------------------------------------------------


@pytest.mark.usefixtures("is_warm")
@pytest.mark.parametrize("manner", Manner, ids=lambda manner: manner.name.lower())
def test_pipelined_requests_are_served_one_after_another_over_one_connection(
    proxy: Proxy, manner: Manner
) -> None:
    client = proxy.client()
    requests = [
        b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
        b"HEAD /3 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PUT /4 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nA: b\r\n\r\n",
        b"\r\nGET /5 HTTP/1.1\r\nHost: b\r\n\r\n",
    ]
    client.send(b"".join(requests), manner)
    backend = proxy.backend()
    for request in requests:
        sent, _, body = request.removeprefix(END).partition(b"\r\n\r\n")
        start, host = sent.split(END)[:2]
        assert backend.read_head().startswith(start + END + host + END)
        assert backend.read_exactly(len(body)) == body
        proxy.settle()
        backend.assert_silent()  # the next one waits for the answer
        answer = S200 + b"Content-Length: 2\r\n\r\n" + (b"" if start.startswith(b"HEAD") else start[-10:-8])
        backend.send(answer)
        assert client.read_exactly(len(answer)) == answer
    assert not proxy.backends_waiting()


@pytest.mark.usefixtures("is_warm")
def test_many_pipelined_requests_are_answered_in_order(proxy: Proxy) -> None:
    client = proxy.client()
    count = 200
    client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(count)))
    backend = proxy.backend()
    for number in range(count):
        assert backend.read_head().startswith(b"GET /%d HTTP/1.1\r\n" % number)
        backend.send(S200 + b"Content-Length: 3\r\n\r\n%03d" % number)
    for number in range(count):
        assert client.read_head()
        assert client.read_exactly(3) == b"%03d" % number


@pytest.mark.usefixtures("is_warm")
@pytest.mark.parametrize(
    "last",
    [
        GET + b"Connection: close\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: a\r\n\r\n",
        POST + b"Connection: close\r\nContent-Length: 2\r\n\r\nhi",
    ],
    ids=["close", "HTTP/1.0", "close with a body"],
)
def test_request_behind_the_last_one_is_not_served(proxy: Proxy, last: bytes) -> None:
    client = proxy.client()
    client.send(last + SMUGGLED)
    backend = proxy.backend()
    backend.read_head()
    backend.read_exactly(2 if last.endswith(b"hi") else 0)
    backend.send(OK)
    assert canonical(client.read_head()) == canonical(CLOSING_OK)
    assert client.read_rest() == (b"ok", End.CLOSED)
    client.close()
    proxy.settle()
    backend.assert_silent()
    assert not proxy.backends_waiting()


@pytest.mark.usefixtures("is_warm")
def test_request_behind_an_answer_that_ends_by_closing_is_not_served(proxy: Proxy) -> None:
    client = proxy.client()
    client.send(GET + END + SMUGGLED)
    backend = proxy.backend()
    backend.read_head()
    backend.send(S200 + END + b"ok")
    backend.half_close()
    assert client.read_rest() == (S200 + b"Connection: close\r\n\r\nok", End.CLOSED)
    client.close()
    assert backend.read_rest()[0] == b""
    proxy.settle()
    assert not proxy.backends_waiting()


@pytest.mark.usefixtures("is_warm")
def test_request_behind_an_upgrade_that_the_backend_ignores_is_the_next_request(proxy: Proxy) -> None:
    client = proxy.client()
    client.send(GET + b"Connection: upgrade\r\nUpgrade: x\r\n\r\n" + GET + b"A: b\r\n\r\n")
    backend = proxy.backend()
    assert b"\r\nUpgrade: x\r\n" in backend.read_head()
    proxy.settle()
    backend.assert_silent()
    backend.send(OK)
    assert client.read_exactly(len(OK)) == OK
    assert b"\r\nA: b\r\n" in backend.read_head()
    backend.send(OK)
    assert client.read_exactly(len(OK)) == OK


# Answers before the end of the request: RFC 9112 section 9.3, 9110 section 7.5 ------------------------------


@pytest.mark.usefixtures("is_warm")
@pytest.mark.parametrize("framing", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
def test_early_answer_ends_the_connection_and_the_rest_of_the_body_is_no_request(
    proxy: Proxy, framing: bytes
) -> None:
    client = proxy.client()
    client.send(POST + framing + b"\r\n\r\n")
    backend = proxy.backend()
    backend.read_head()
    backend.send(b"HTTP/1.1 413 Large\r\nContent-Length: 2\r\n\r\nno")
    head = client.read_head()
    assert head.startswith(b"HTTP/1.1 413 Large\r\n")
    assert b"\r\nConnection: close\r\n" in head
    assert client.read_rest() == (b"no", End.CLOSED)
    client.send(SMUGGLED)
    client.wait_taken()
    client.send(KNOWN)
    assert b"GET" not in backend.read_rest()[0]
    client.close()
    proxy.settle()
    assert not proxy.backends_waiting()


@pytest.mark.usefixtures("is_warm")
def test_body_that_is_a_request_is_a_body_in_a_segment_of_its_own_too(proxy: Proxy) -> None:
    client = proxy.client()
    for _ in range(3):
        client.send(POST + b"Content-Length: %d\r\n\r\n" % len(KNOWN))
        backend = proxy.backend()
        assert backend.read_head().startswith(b"POST / ")
        client.send(KNOWN)
        assert backend.read_exactly(len(KNOWN)) == KNOWN
        backend.send(S200 + b"Content-Length: %d\r\n\r\n" % len(OK))
        assert client.read_head()
        backend.send(OK)  # a body that is a response
        assert client.read_exactly(len(OK)) == OK
        client.send(KNOWN)
        serve(backend, client)
        backend.close()
    proxy.settle()
    assert not proxy.backends_waiting()


@pytest.mark.usefixtures("is_warm")
def test_answer_that_goes_on_while_the_body_still_comes_is_passed_on_both_ways(proxy: Proxy) -> None:
    client = proxy.client()
    client.send(POST + b"Content-Length: 6\r\n\r\nab")
    backend = proxy.backend()
    backend.read_head()
    assert backend.read_exactly(2) == b"ab"
    backend.send(S200 + b"Content-Length: 6\r\n\r\nAB")
    assert client.read_head().startswith(S200)
    assert client.read_exactly(2) == b"AB"
    client.send(b"cd")
    assert backend.read_exactly(2) == b"cd"
    backend.send(b"CD")
    assert client.read_exactly(2) == b"CD"
    client.send(b"ef")
    assert backend.read_exactly(2) == b"ef"
    backend.send(b"EF")
    assert client.read_rest() == (b"EF", End.CLOSED)


@pytest.mark.usefixtures("is_warm")
def test_body_that_breaks_after_an_answer_has_begun_cuts_the_client(proxy: Proxy) -> None:
    client = proxy.client()
    client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
    backend = proxy.backend()
    backend.read_head()
    backend.send(S200 + b"Content-Length: 5\r\n\r\nhe")
    assert client.read_head().startswith(S200)
    assert client.read_exactly(2) == b"he"
    client.send(b"no size\r\n" + SMUGGLED)
    assert client.read_rest()[1] is End.RESET
    assert b"smuggled" not in backend.read_rest()[0]


# How clients leave ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("is_warm")
def test_client_that_closes_between_requests_is_closed_too(proxy: Proxy) -> None:
    client = proxy.client()
    client.send(GET + END)
    backend = proxy.backend()
    serve(backend, client)
    client.half_close()
    assert client.read_rest() == (b"", End.CLOSED)
    backend.assert_silent()  # the backend's connection stays for others


@pytest.mark.parametrize("sent", [b"", b"G", b"GET / HTTP/1.1\r\nHost: a\r\n", b"\r\n", b"\r"])
def test_client_that_closes_before_the_end_of_a_head_gets_no_answer(proxy: Proxy, sent: bytes) -> None:
    client = proxy.client()
    if sent:
        client.send(sent)
    client.half_close()
    assert client.read_rest() == (b"", End.CLOSED)
    proxy.settle()
    assert not proxy.backends_waiting()


@pytest.mark.usefixtures("is_warm")
@pytest.mark.parametrize("by_reset", [False, True], ids=["closed", "reset"])
def test_client_that_leaves_while_it_waits_takes_its_request_along(proxy: Proxy, by_reset: bool) -> None:
    client = proxy.client()
    client.send(GET + END)
    backend = proxy.backend()
    backend.read_head()
    if by_reset:
        client.reset()
    else:
        client.half_close()
        assert client.read_rest() == (b"", End.CLOSED)
    assert backend.read_rest()[0] == b""


@pytest.mark.usefixtures("is_warm")
@pytest.mark.parametrize("sent", [KNOWN, KNOWN * 2, POST + b"Content-Length: 2\r\n\r\nhi"])
def test_request_with_the_end_right_behind_it_gets_no_answer(proxy: Proxy, sent: bytes) -> None:
    client = proxy.client()
    client.send(sent)
    client.half_close()
    assert client.read_rest() == (b"", End.CLOSED)


@pytest.mark.usefixtures("is_warm")
@pytest.mark.parametrize("by_reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"Content-Length: 5", b"hell"),
        (b"Content-Length: 5", b""),
        (b"Transfer-Encoding: chunked", b""),
        (b"Transfer-Encoding: chunked", b"5\r\nhell"),
        (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n"),
        (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n"),
    ],
)
def test_body_that_the_client_cuts_short_looks_cut_short_to_the_backend(
    proxy: Proxy, framing: bytes, body: bytes, by_reset: bool
) -> None:
    client = proxy.client()
    client.send(POST + framing + b"\r\n\r\n" + body)
    backend = proxy.backend()
    backend.read_head()
    assert backend.read_exactly(len(body) - body.endswith(b"0\r\n") * 3) in body
    if by_reset:
        client.reset()
    else:
        client.half_close()
    rest, _ = backend.read_rest()
    assert b"\r\n\r\n" not in rest
    proxy.settle()
    assert not proxy.backends_waiting()


@pytest.mark.usefixtures("is_warm")
def test_client_that_leaves_during_the_answer_ends_the_backend_connection(proxy: Proxy) -> None:
    client = proxy.client()
    client.send(GET + END)
    backend = proxy.backend()
    backend.read_head()
    backend.send(S200 + b"Content-Length: 10\r\n\r\nhalf")
    assert client.read_head()
    client.reset()
    assert backend.read_rest()[0] == b""


# Second tries: RFC 9110 section 9.2.2, 9112 section 9.3.1 ---------------------------------------------------


def idle_connection(proxy: Proxy, client: Wire) -> Wire:
    """A backend connection that has served and lies in the pool."""
    client.send(GET + END)
    backend = proxy.backend()
    serve(backend, client)
    return backend


@pytest.mark.parametrize("by_reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize(
    "request_bytes",
    [
        GET + END,
        b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        b"DELETE / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
    ],
    ids=lambda request: request.split()[0].decode(),
)
def test_idempotent_request_on_an_idle_connection_that_ends_unanswered_is_sent_again(
    proxy: Proxy, request_bytes: bytes, by_reset: bool
) -> None:
    client = proxy.client()
    stale = idle_connection(proxy, client)
    client.send(request_bytes)
    first = stale.read_head()
    body = request_bytes.partition(b"\r\n\r\n")[2]
    assert stale.read_exactly(len(body)) == body
    if by_reset:
        stale.reset()
    else:
        stale.half_close()
    fresh = proxy.backend()
    assert fresh.read_head() == first  # with the same ids: it is the same request
    assert fresh.read_exactly(len(body)) == body
    answer = S200 + b"Content-Length: 0\r\n\r\n"
    fresh.send(answer)
    assert client.read_exactly(len(answer)) == answer


@pytest.mark.parametrize("method", [b"POST", b"PATCH", b"PURGE", b"get"])
def test_request_that_may_have_had_an_effect_is_not_sent_again(proxy: Proxy, method: bytes) -> None:
    client = proxy.client()
    stale = idle_connection(proxy, client)
    client.send(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
    stale.read_head()
    stale.half_close()
    head = client.read_head()
    assert head.startswith(b"HTTP/1.1 502 ")
    assert b"error=connection_terminated" in head
    proxy.settle()
    assert not proxy.backends_waiting()


@pytest.mark.parametrize("by_reset", [False, True], ids=["closed", "reset"])
def test_request_on_a_fresh_connection_is_not_sent_again(proxy: Proxy, by_reset: bool) -> None:
    client = proxy.client()
    client.send(GET + END)
    backend = proxy.backend()
    backend.read_head()
    if by_reset:
        backend.reset()
    else:
        backend.half_close()
    head = client.read_head()
    assert head.startswith(b"HTTP/1.1 502 ")
    assert b"error=connection_terminated;" in head
    proxy.settle()
    assert not proxy.backends_waiting()


def test_request_is_sent_a_second_time_only(proxy: Proxy) -> None:
    client = proxy.client()
    stale = idle_connection(proxy, client)
    client.send(GET + END)
    stale.read_head()
    stale.half_close()
    fresh = proxy.backend()
    fresh.read_head()
    fresh.half_close()
    assert client.read_head().startswith(b"HTTP/1.1 502 ")
    proxy.settle()
    assert not proxy.backends_waiting()


@pytest.mark.parametrize("begun", [b"H", S200, b"HTTP/1.1 102 A\r\n\r\n"])
def test_request_whose_answer_has_begun_is_not_sent_again(proxy: Proxy, begun: bytes) -> None:
    client = proxy.client()
    stale = idle_connection(proxy, client)
    client.send(GET + END)
    stale.read_head()
    stale.send(begun)
    stale.half_close()
    head = client.read_head()
    if head == begun:
        head = client.read_head()
    assert head.startswith(b"HTTP/1.1 502 ")
    proxy.settle()
    assert not proxy.backends_waiting()


def test_request_whose_body_was_used_up_is_not_sent_again(proxy: Proxy) -> None:
    client = proxy.client()
    stale = idle_connection(proxy, client)
    client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n")
    stale.read_head()
    client.send(b"half")
    assert stale.read_exactly(4) == b"half"
    stale.half_close()
    assert client.read_head().startswith(b"HTTP/1.1 502 ")
    proxy.settle()
    assert not proxy.backends_waiting()


def test_answer_never_repeats_what_the_client_sent(proxy: Proxy) -> None:
    for request in (
        b"GET /marked#marked HTTP/1.1\r\nHost: marked\r\n\r\n",
        GET + b"marked : marked\r\n\r\n",
        b"marked / HTTP/9.9\r\n\r\n",
        GET + b"Expect: marked\r\n\r\n",
        POST + b"Transfer-Encoding: marked\r\n\r\n",
    ):
        client = proxy.client()
        client.send(request)
        answer, _ = client.read_rest()
        assert b"marked" not in answer.lower()


# Answers of lbproc's own: RFC 9110 section 15, 9209 ---------------------------------------------------------


def test_no_route_is_404_and_the_connection_serves_on(proxy: Proxy) -> None:
    client = proxy.client("nowhere")
    for _ in range(3):
        client.send(GET + END)
        head = client.read_head()
        assert head.startswith(b"HTTP/1.1 404 ")
        assert b"\r\nProxy-Status: lbproc; error=destination_not_found; details=" in head
        assert b"\r\nCache-Control: no-store\r\n" in head
        length = int(head.partition(b"Content-Length: ")[2].partition(b"\r")[0])
        assert client.read_exactly(length).startswith(b"404 ")
    client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.read_head().startswith(b"HTTP/1.1 404 ")
    client.send(GET + b"Accept: application/json\r\nConnection: close\r\n\r\n")
    head = client.read_head()
    assert b"\r\nContent-Type: application/json\r\n" in head
    assert client.read_rest()[0].startswith(b'{"error": {"status": 404, ')


def test_no_route_with_a_body_ends_the_connection(proxy: Proxy) -> None:
    client = proxy.client("nowhere")
    client.send(POST + b"Content-Length: 40\r\n\r\n" + SMUGGLED)
    answer, end = client.read_rest()
    assert_refused(answer, 404, "destination_not_found")
    assert end is End.CLOSED
