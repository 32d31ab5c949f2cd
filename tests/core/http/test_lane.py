"""The fast lane: what it takes h11 takes alike, what has to be refused it never takes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from random import Random

import h11
import pytest
from h11._connection import _body_framing
from hypothesis import example, given
from hypothesis import strategies as st

from lbproc.core.http.framing import CHUNKED, NO_BODY, UNTIL_CLOSE, Framing, FramingKind
from lbproc.core.http.head import read_request_head, read_response_head
from lbproc.core.http.lane import RequestLane, ResponseLane
from lbproc.core.http.message import RequestHead, ResponseHead
from lbproc.core.http.rejected import Rejected
from lbproc.core.http.strict import HeadLimits
from tests.core.http.messages import LIMITS, heads, request, response
from tests.core.http.mutants import (
    BROWSER,
    CHUNKED_PUT,
    CURL,
    GO,
    GOOD_REQUESTS,
    GOOD_RESPONSES,
    GUNICORN,
    NO_LENGTH,
    NODE,
    SDK_POST,
    Mutants,
)
from tests.core.http.rules import broken_by_request, broken_by_response
from tests.core.http.test_smuggling import REFUSED, RESPONSES

METHODS = (b"GET", b"HEAD", b"POST")


def as_h11_reads_request(raw: bytes) -> tuple[object, ...]:
    """Method, target, version, fields and framing according to h11 alone."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(raw)
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    return (
        event.method,
        event.target,
        event.http_version,
        event.headers.raw_items(),
        _body_framing(b"", event),
    )


def as_h11_reads_response(raw: bytes, method: bytes) -> tuple[object, ...]:
    """Status, version, fields and framing according to h11 alone."""
    connection = h11.Connection(h11.CLIENT)
    connection.receive_data(raw)
    event = connection.next_event()
    assert isinstance(event, h11.Response)
    framing = _body_framing(method, event)
    return (event.status_code, event.http_version, event.headers.raw_items(), framing)


def in_words_of_h11(framing: Framing, *, bodiless: bool) -> tuple[str, tuple[int, ...]]:
    """h11 calls no body a body of length 0."""
    if framing is CHUNKED:
        return ("chunked", ())
    if framing is UNTIL_CLOSE:
        return ("http/1.0", ())
    assert (framing is NO_BODY) == (framing.kind is FramingKind.NO_BODY)
    assert framing is not NO_BODY or bodiless
    return ("content-length", (framing.length,))


def takes_request(lane: RequestLane, raw: bytes) -> RequestHead | None:
    """Asks the lane; of a head that it takes, everything is proved that it has to keep to."""
    head = lane.read(raw, LIMITS.max_count)
    if head is not None:
        assert broken_by_request(raw) is None
        assert as_h11_reads_request(raw) == (
            head.method,
            head.target,
            b"1.1",
            [(name, value) for _, name, value in head.headers],
            in_words_of_h11(head.framing, bodiless=True),
        )
        assert read_request_head(raw, LIMITS) == head
    return head


def takes_response(lane: ResponseLane, raw: bytes, method: bytes) -> ResponseHead | None:
    """The same for a response."""
    head = lane.read(raw, method)
    if head is not None:
        assert broken_by_response(raw) is None
        bodiless = method == b"HEAD" or head.status in {204, 304}
        assert as_h11_reads_response(raw, method) == (
            head.status,
            b"1.1",
            [(name, value) for _, name, value in head.headers],
            in_words_of_h11(head.framing, bodiless=bodiless),
        )
        assert read_response_head(raw, method) == head
    return head


@pytest.mark.parametrize("raw", GOOD_REQUESTS)
def test_takes_what_browsers_tools_and_clients_of_apis_send(raw: bytes) -> None:
    lane = RequestLane()
    for _ in range(60):
        assert takes_request(lane, raw) is not None


@pytest.mark.parametrize("raw", GOOD_RESPONSES)
@pytest.mark.parametrize("method", METHODS)
def test_takes_what_servers_send(raw: bytes, method: bytes) -> None:
    lane = ResponseLane()
    for _ in range(30):
        assert takes_response(lane, raw, method) is not None


def test_reads_all_there_is_in_a_request() -> None:
    head = RequestLane().read(SDK_POST, 100)
    assert head is not None
    assert (head.method, head.target, head.path, head.query) == (
        b"POST",
        b"/v1/chat/completions",
        b"/v1/chat/completions",
        b"",
    )
    assert (head.host, head.hostname) == (b"api.example.com", "api.example.com")
    assert (head.framing, head.keep_alive) == (Framing(FramingKind.LENGTH, 402), True)
    assert (head.http10, head.expects_continue, head.upgrade) == (False, False, None)
    head = RequestLane().read(CHUNKED_PUT, 100)
    assert head is not None
    assert (head.framing, head.keep_alive, head.connection_tokens) == (CHUNKED, False, frozenset({b"close"}))
    assert head.hostname == "[::1]"


def test_reads_all_there_is_in_a_response() -> None:
    head = ResponseLane().read(GO, b"GET")
    assert head is not None
    assert (head.status, head.reason, head.framing) == (200, b"OK", Framing(FramingKind.LENGTH, 12))
    head = ResponseLane().read(NODE, b"GET")
    assert head is not None
    assert (head.framing, head.keep_alive) == (CHUNKED, True)
    head = ResponseLane().read(NO_LENGTH, b"GET")
    assert head is not None
    assert (head.reason, head.framing, head.keep_alive) == (b"", UNTIL_CLOSE, False)
    head = ResponseLane().read(GUNICORN, b"GET")
    assert head is not None
    assert head.values(b"set-cookie") == [b"a=b; Path=/", b"c=d"]


@pytest.mark.parametrize(
    "raw",
    [
        request(line=b"GET / HTTP/1.0"),
        request(line=b"GET http://a/ HTTP/1.1"),
        request(line=b"OPTIONS * HTTP/1.1"),
        request(line=b"get / HTTP/1.1"),
        request(b"Expect: 100-continue", b"Content-Length: 1"),
        request(b"Connection: upgrade", b"Upgrade: websocket"),
        request(b"Connection: keep-alive, X-A"),
        request(b"Connection: close", b"Connection: close"),
        request(b"Content-Length: 007"),
        request(b"Transfer-Encoding: Chunked"),
        request(b"X_A: b"),
        request(b"X-A:b"),
        request(b"X-A:  b"),
        request(b"X-A: b "),
        request(b"X-A: b\t"),
        request(b"X-A:"),
        request(b"X-A: "),
    ],
)
def test_leaves_to_the_long_way_what_is_right_but_not_ordinary(raw: bytes) -> None:
    assert RequestLane().read(raw, 100) is None
    read_request_head(raw, LIMITS)


@pytest.mark.parametrize(
    "raw",
    [
        response(line=b"HTTP/1.0 200 OK"),
        response(line=b"HTTP/1.1 100 Continue"),
        response(b"Upgrade: h2c", line=b"HTTP/1.1 426 x"),
        response(b"Connection: Keep-Alive, x"),
        response(b"Content-Length: 00"),
        response(b"X: b "),
    ],
)
def test_leaves_responses_to_the_long_way_too(raw: bytes) -> None:
    assert ResponseLane().read(raw, b"GET") is None
    read_response_head(raw, b"GET")


@pytest.mark.parametrize(("name", "stream", "status"), REFUSED, ids=[row[0] for row in REFUSED])
def test_never_takes_an_attack(name: str, stream: bytes, status: int) -> None:
    raw = stream[: stream.find(b"\r\n\r\n") + 4] or stream
    try:
        read_request_head(raw, LIMITS)
    except Rejected:
        assert RequestLane().read(raw, LIMITS.max_count) is None, name
    assert RequestLane().read(stream + b"x", LIMITS.max_count) is None


@pytest.mark.parametrize(("name", "stream"), RESPONSES, ids=[row[0] for row in RESPONSES])
def test_never_takes_a_response_that_is_refused(name: str, stream: bytes) -> None:
    assert ResponseLane().read(stream, b"GET") is None, name


def test_takes_exactly_one_head() -> None:
    for raw in (
        b"",
        b"\r\n",
        b"\r\n\r\n",
        CURL[:-1],
        CURL[:-2],
        CURL[:-4],
        CURL + b"x",
        CURL + b"\r\n",
        CURL + CURL,
        b"\r\n" + CURL,
    ):
        assert RequestLane().read(raw, 100) is None
    for raw in (b"", b"\r\n\r\n", GO[:-1], GO[:-2], GO[:-4], GO + b"x", GO + b"\r\n", GO + GO):
        assert ResponseLane().read(raw, b"GET") is None


def test_the_number_of_fields_is_bounded() -> None:
    lane = RequestLane()
    raw = request(b"A: 1", b"B: 1")
    assert lane.read(raw, 3) is not None
    assert lane.read(raw, 2) is None


@pytest.mark.parametrize("line", [b"Host: a/b", b"Host: ", b"Host: " + b"a" * 300, b"Host: a:70000"])
def test_a_bad_host_is_left_to_the_long_way(line: bytes) -> None:
    assert RequestLane().read(request(host=line + b"\r\n"), 100) is None


_NAMES = st.from_regex(rb"[!#$%&'*+\-.^`|~0-9A-Za-z]{1,12}", fullmatch=True)
_VALUES = st.from_regex(
    rb"[\x21-\x7e\x80-\xff]([\t\x20-\x7e\x80-\xff]{0,30}[\x21-\x7e\x80-\xff])?", fullmatch=True
)
_PATHS = st.from_regex(rb"/[\x21\x22\x24-\x7e]{0,20}", fullmatch=True)
_METHODS = st.from_regex(rb"[A-Z]{1,8}", fullmatch=True)
_HOSTS = st.from_regex(rb"[A-Za-z0-9-]{1,9}(\.[a-z0-9]{1,5})?(:[0-9]{1,4})?", fullmatch=True)
_REASONS = st.from_regex(rb"( [\t\x20-\x7e\x80-\xff]{0,12})?", fullmatch=True)
_FRAMINGS = st.one_of(
    st.just(b""),
    st.integers(0, 10**18 - 1).map(lambda length: b"Content-Length: %d\r\n" % length),
    st.sampled_from([b"Transfer-Encoding: chunked\r\n", b"transfer-encoding: chunked\r\n"]),
)
_CONNECTIONS = st.sampled_from(
    [b"", b"Connection: close\r\n", b"connection: keep-alive\r\n", b"Connection: Keep-Alive\r\n"]
)
_DECIDING = {b"host", b"connection", b"content-length", b"transfer-encoding", b"expect", b"upgrade"}
_OTHER_LINES = st.lists(
    st.tuples(_NAMES.filter(lambda name: name.lower() not in _DECIDING), _VALUES).map(
        lambda pair: b"%b: %b\r\n" % pair
    ),
    max_size=6,
)


@st.composite
def ordinary_requests(draw: st.DrawFn) -> bytes:
    method = draw(_METHODS.filter(lambda method: method != b"CONNECT"))
    lines = [b"Host: %b\r\n" % draw(_HOSTS), draw(_FRAMINGS), draw(_CONNECTIONS), *draw(_OTHER_LINES)]
    return b"%b %b HTTP/1.1\r\n%b\r\n" % (method, draw(_PATHS), b"".join(draw(st.permutations(lines))))


@st.composite
def ordinary_responses(draw: st.DrawFn) -> bytes:
    lines = [draw(_FRAMINGS), draw(_CONNECTIONS), *draw(_OTHER_LINES)]
    start = b"HTTP/1.1 %d%b\r\n" % (draw(st.integers(200, 599)), draw(_REASONS))
    return b"%b%b\r\n" % (start, b"".join(draw(st.permutations(lines))))


@given(ordinary_requests())
def test_every_ordinary_request_is_taken_and_read_as_h11_and_the_long_way_read_it(raw: bytes) -> None:
    assert takes_request(RequestLane(), raw) is not None


@given(ordinary_responses(), st.sampled_from(METHODS))
def test_every_ordinary_response_is_taken_and_read_as_h11_and_the_long_way_read_it(
    raw: bytes, method: bytes
) -> None:
    assert takes_response(ResponseLane(), raw, method) is not None


@given(ordinary_requests(), st.data())
def test_an_ordinary_request_with_any_bytes_put_in_is_taken_only_if_it_is_good(
    raw: bytes, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(raw)))
    lost = data.draw(st.integers(0, 3))
    takes_request(RequestLane(), raw[:place] + data.draw(st.binary(max_size=3)) + raw[place + lost :])


@given(ordinary_responses(), st.data())
def test_an_ordinary_response_with_any_bytes_put_in_is_taken_only_if_it_is_good(
    raw: bytes, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(raw)))
    lost = data.draw(st.integers(0, 3))
    changed = raw[:place] + data.draw(st.binary(max_size=3)) + raw[place + lost :]
    takes_response(ResponseLane(), changed, data.draw(st.sampled_from(METHODS)))


@given(
    st.lists(heads() | ordinary_requests() | st.sampled_from(GOOD_REQUESTS), max_size=8), st.integers(1, 4)
)
@example([BROWSER, CURL, SDK_POST], 60)
def test_what_is_remembered_changes_no_reading_of_a_request(sequence: list[bytes], times: int) -> None:
    warm = RequestLane()
    for raw in sequence * times:
        assert takes_request(warm, raw) == RequestLane().read(raw, LIMITS.max_count)


@given(
    st.lists(heads(of_responses=True) | ordinary_responses() | st.sampled_from(GOOD_RESPONSES), max_size=8)
)
@example(GOOD_RESPONSES * 30)
def test_what_is_remembered_changes_no_reading_of_a_response(sequence: list[bytes]) -> None:
    warm = ResponseLane()
    for raw in sequence * 3:
        for method in METHODS:
            assert takes_response(warm, raw, method) == ResponseLane().read(raw, method)


def remembered(lane: RequestLane, *lines: bytes) -> list[bytes]:
    return [line for line in lines if lane._lines._known(line) or lane._lines._known_acted_on(line)]


def test_lines_that_repeat_are_remembered_after_some_heads_however_many_there_are() -> None:
    lane = RequestLane()
    lines = BROWSER.split(b"\r\n")[1:-2]
    assert lane.read(BROWSER, 100) is not None
    assert remembered(lane, *lines) == []
    for _ in range(60):
        lane.read(BROWSER, 100)
    assert remembered(lane, *lines) == [
        line for line in lines if not line.startswith((b"Cookie", b"Referer"))
    ]


@pytest.mark.parametrize(
    "line",
    [
        b"Cookie: a=b", b"Authorization: Basic YTpi", b"Proxy-Authorization: x", b"X-Api-Key: x",
        b"X-Auth-Token: x", b"X-Something-New: x", b"Referer: /reset?token=x", b"X-Forwarded-For: 1.2.3.4",
        b"Set-Cookie: a=b", b"Content-Length: 7",
    ],
)  # fmt: skip
def test_a_line_that_may_carry_a_secret_or_tells_of_the_peer_is_never_remembered(line: bytes) -> None:
    lane = RequestLane()
    for _ in range(50):
        assert lane.read(request(line), 100) is not None
    assert remembered(lane, line) == []
    assert remembered(lane, b"Host: a") == [b"Host: a"]


def test_a_line_that_is_wrong_or_long_is_never_remembered() -> None:
    lane = RequestLane()
    long = b"Accept: " + b"a" * 300
    for _ in range(50):
        assert lane.read(request(b"Accept: a\x00b"), 100) is None
        assert lane.read(request(b"Accept: a\nb"), 100) is None
        assert lane.read(request(long), 100) is not None
    assert remembered(lane, b"Accept: a\x00b", b"Accept: a\nb", long) == []


def test_a_head_of_very_many_lines_is_read_without_looking_them_up_or_remembering_them() -> None:
    lane = RequestLane()
    raw = request(*[b"Accept: a"] * 40)
    for _ in range(5):
        assert takes_request(lane, raw) is not None
    assert takes_request(lane, request(*[b"Accept: a"] * 40, b"Accept : a")) is None
    assert takes_request(lane, request(*[b"Accept: a"] * 40, b"host: a")) is None
    assert len(lane._lines) == 0


def test_heads_that_never_repeat_leave_nothing_behind() -> None:
    lane = RequestLane()
    for number in range(3_000):
        assert lane.read(
            request(b"Accept: %d" % number, b"User-Agent: %d" % number, host=b"Host: h%d\r\n" % number), 100
        )
    assert len(lane._lines) == 0


def try_mutants(count: int, seed: int, progress: Callable[[int], None] = lambda _: None) -> tuple[int, int]:
    """Shows that many requests and as many responses to lanes that remember. Returns how many were taken."""
    requests, responses = Mutants(Random(seed)), Mutants(Random(seed), of_responses=True)
    request_lane, response_lane = RequestLane(), ResponseLane()
    taken = [0, 0]
    for number in range(count):
        taken[0] += takes_request(request_lane, requests.next()) is not None
        taken[1] += takes_response(response_lane, responses.next(), METHODS[number % 2]) is not None
        progress(number)
    return taken[0], taken[1]


@pytest.mark.slow
def test_mutants_are_taken_only_if_they_are_good() -> None:
    taken = try_mutants(8_000, seed=1)
    assert all(1_000 < number < 7_000 for number in taken)


@pytest.mark.soak
def test_millions_of_mutants_are_taken_only_if_they_are_good(capsys: pytest.CaptureFixture[str]) -> None:
    count = 1_500_000

    def progress(number: int) -> None:
        if number % 100_000 == 0:
            with capsys.disabled():
                sys.stdout.write(f"\n{2 * number} heads of {2 * count}")
                sys.stdout.flush()

    seed = Random().getrandbits(32)
    taken = try_mutants(count, seed, progress)
    with capsys.disabled():
        sys.stdout.write(
            f"\n{2 * count} heads from seed {seed}, {taken[0]} requests and {taken[1]} responses were taken\n"
        )


def test_underscores_are_settled_by_the_long_way_alone() -> None:
    raw = request(b"X_A: 1")
    assert RequestLane().read(raw, 100) is None
    with pytest.raises(Rejected):
        read_request_head(raw, HeadLimits(underscore="reject"))
