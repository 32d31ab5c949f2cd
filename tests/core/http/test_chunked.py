"""The chunk scanner, exhaustively on small streams and against two other decoders."""

from __future__ import annotations

import itertools
import string

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproc.core.http.chunked import ChunkScanner
from lbproc.core.http.rejected import Rejected
from tests.core.http.messages import refused

Outcome = tuple[bytes, bool, int] | int


def scanned(pieces: list[bytes], max_payload: int | None = None) -> Outcome:
    """Payload, whether the body is complete, and how many bytes it took; or the status of the refusal."""
    scanner = ChunkScanner(max_payload)
    payload: list[bytes] = []
    taken = 0
    try:
        for piece in pieces:
            taken += scanner.scan(piece, payload)
    except Rejected as rejected:
        return rejected.status
    assert scanner.received == len(b"".join(payload))
    return b"".join(payload), scanner.done, taken


def scanned_in_one_buffer(pieces: list[bytes], max_payload: int | None = None) -> Outcome:
    """The same through a view of one buffer, which each piece overwrites, as a relay reads."""
    scanner = ChunkScanner(max_payload)
    buffer = memoryview(bytearray(max(map(len, pieces), default=0)))
    arrived = b""
    taken = 0
    try:
        for piece in pieces:
            buffer[:] = b"0" * len(buffer)
            buffer[: len(piece)] = piece
            payload: list[memoryview] = []
            taken += scanner.scan(buffer[: len(piece)], payload)
            arrived += b"".join(payload)
    except Rejected as rejected:
        return rejected.status
    assert scanner.received == len(arrived)
    return arrived, scanner.done, taken


def decoded_by_reading(stream: bytes) -> tuple[bytes, int] | None:
    """A slow decoder from the grammar, without extensions and trailers: payload and end, or None."""
    payload, at = b"", 0
    digits = string.hexdigits.encode()
    while True:
        begin = at
        while at < len(stream) and stream[at] in digits:
            at += 1
        if at == begin or stream[at : at + 2] != b"\r\n":
            return None
        size = int(stream[begin:at], 16)
        at += 2
        if size == 0:
            return (payload, at + 2) if stream[at : at + 2] == b"\r\n" else None
        payload += stream[at : at + size]
        at += size
        if stream[at : at + 2] != b"\r\n":
            return None
        at += 2


GOOD = [
    (b"0\r\n\r\n", b""),
    (b"000\r\n\r\n", b""),
    (b"2\r\nab\r\n0\r\n\r\n", b"ab"),
    (b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", b"abc"),
    (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
    (b"0000000000000001\r\n\n\r\n0\r\n\r\n", b"\n"),
    (b'1;a;b=c;d="e;\\" f"\r\nx\r\n0;z\r\n\r\n', b"x"),
    (b"1\r\nx\r\n0\r\nA: b\r\nC:\r\n\r\n", b"x"),
]


@pytest.mark.parametrize(("body", "payload"), GOOD)
def test_finds_the_end_and_leaves_what_follows(body: bytes, payload: bytes) -> None:
    assert scanned([body]) == (payload, True, len(body))
    assert scanned([body + b"GET / HTTP/1.1"]) == (payload, True, len(body))
    assert scanned([body, b"more"]) == (payload, True, len(body))


BAD = [
    b"2 \r\nab\r\n", b"2\t\r\nab\r\n", b" 2\r\nab\r\n", b"2\nab\r\n", b"2\r\rab\r\n", b"0x2\r\nab\r\n",
    b"+2\r\nab\r\n", b"-1\r\nab\r\n", b"2_0\r\nab\r\n", b"\r\n", b"\n", b";a\r\n", b"g\r\n",
    b"00000000000000001\r\na\r\n", b"2;\r\nab\r\n", b"2;a\nb\r\nab\r\n", b"2 ;a\r\nab\r\n",
    b"2; a\r\nab\r\n", b"2;a =b\r\nab\r\n", b"2;a=\r\nab\r\n", b'2;a="\r\nab\r\n', b"2;a\rb\r\nab\r\n",
    b"2;a\x00\r\nab\r\n", b'2;a="\xff"\r\nab\r\n', b"2\r\nabc\r\n", b"2\r\nab\n0\r\n\r\n", b"2\r\nabX\r\n",
    b"2\r\nab\rX", b"2\r\nab\r\n\r\n", b"0\r\n\n", b"0\r\n\r\r\n", b"0\r\nA: b\nC: d\r\n\r\n",
    b"0\r\nA : b\r\n\r\n", b"0\r\nno colon\r\n\r\n", b"0\r\n folded: a\r\n\r\n", b"0\r\nA: \x01\r\n\r\n",
    b"0\r\nA: \x00", b"0\r\n: a\r\n\r\n",
]  # fmt: skip


@pytest.mark.parametrize("body", BAD)
def test_every_doubtful_byte_is_refused_however_it_arrives(body: bytes) -> None:
    assert scanned([body]) == 400
    assert scanned([body[at : at + 1] for at in range(len(body))]) == 400


@pytest.mark.parametrize(
    "name",
    [
        b"Content-Length", b"transfer-encoding", b"Host", b"Authorization", b"Cookie", b"X-Forwarded-For",
        b"Connection", b"Content-Type", b"Content_Length", b"Trailer", b"Expect", b"Set-Cookie", b"TE",
    ],
)  # fmt: skip
def test_trailers_never_carry_what_others_rest_on(name: bytes) -> None:
    assert scanned([b"0\r\nA: b\r\n" + name + b": x\r\n\r\n"]) == 400


def test_an_unfinished_body_is_not_done() -> None:
    body = b"2;a\r\nab\r\n0\r\nA: b\r\n\r\n"
    for end in range(len(body)):
        outcome = scanned([body[:end]])
        assert isinstance(outcome, tuple)
        assert outcome[1:] == (False, end)


def every_split(body: bytes) -> list[list[bytes]]:
    places = range(1, len(body))
    return [
        [body[a:b] for a, b in itertools.pairwise([0, *cuts, len(body)])]
        for count in range(len(body))
        for cuts in itertools.combinations(places, count)
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"1\r\na\r\n0\r\n\r\nX",
        b"1;a\r\nb\r\n0\r\n",
        b"0\r\nA:b\r\n\r\nX",
        b"2\r\n\r\n\r\n0\r\n\r",
        b"1\r\na\n0\r\n\r\n",
    ],
)
def test_every_split_gives_the_same(body: bytes) -> None:
    whole = scanned([body])
    assert all(scanned(pieces) == scanned_in_one_buffer(pieces) == whole for pieces in every_split(body))


@pytest.mark.slow
def test_agrees_with_a_slow_decoder_on_every_small_stream() -> None:
    alphabet = [b"0\r\n", b"1\r\n", b"2", b"\r\n", b"\r", b"\n", b"x"]
    for length in range(1, 7):
        for parts in itertools.product(alphabet, repeat=length):
            stream = b"".join(parts)
            outcome = scanned([stream])
            expected = decoded_by_reading(stream)
            if expected is not None:
                assert outcome == (expected[0], True, expected[1])
            elif isinstance(outcome, tuple):
                assert not outcome[1]


def test_payload_and_lines_are_bounded() -> None:
    assert scanned([b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"], 5) == (b"abcde", True, 20)
    assert scanned([b"3\r\nabc\r\n3\r\n"], 5) == 413
    assert scanned([b"3\r\nabc\r\n3\r\ndef\r\n"], 5) == 413
    assert scanned([b"F" * 16 + b"\r\n"], 2**30) == 413


def test_a_size_line_is_bounded() -> None:
    longest = b"1;" + b"a" * 1020 + b"\r\n"
    assert scanned([longest]) == (b"", False, 1024)
    assert scanned([longest[:1023], longest[1023:]]) == (b"", False, 1024)
    longer = b"1;" + b"a" * 1021 + b"\r\n"
    for pieces in (
        [longer],
        [longer + b"x\r\n"],
        [longer[:600], longer[600:]],
        [longer[:1024]],
        [longer[:1023], b"\r"],
    ):
        assert scanned(pieces) == 400


def test_extensions_may_not_outweigh_the_payload() -> None:
    chunk = b"1;" + b"a" * 1000 + b"\r\nx\r\n"
    assert scanned([chunk * 10]) == (b"x" * 10, False, 10 * len(chunk))
    assert scanned([chunk * 100]) == 400
    assert scanned([chunk] * 100) == 400
    signed = b"400;chunk-signature=" + b"a" * 64 + b"\r\n" + b"x" * 1024 + b"\r\n"
    assert isinstance(scanned([signed] * 1000), tuple)


def test_trailers_are_bounded() -> None:
    trailer = b"A: " + b"b" * 8000 + b"\r\n"
    assert scanned([b"0\r\n" + trailer + b"\r\n"]) == (b"", True, 3 + len(trailer) + 2)
    assert scanned([b"0\r\n" + trailer + trailer]) == 431
    assert scanned([b"0\r\n", trailer, trailer]) == 431


def test_a_scanner_that_does_not_collect_counts() -> None:
    scanner = ChunkScanner(None)
    assert scanner.scan(b"3\r\nabc\r\n5\r\nab") == 13
    assert scanner.scan(b"cde\r\n0\r\n\r\n") == 10
    assert (scanner.received, scanner.done) == (8, True)


streams = st.lists(
    st.sampled_from(
        [b"0", b"1", b"3", b"a", b"\r\n", b"\r", b"\n", b"abc", b";", b";x=y", b';x="y"', b" ", b"A: b"]
    )
    | st.sampled_from([b"1\r\na\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n", b"\xff", b"\x00"]),
    max_size=12,
).map(b"".join)


@given(streams, st.lists(st.integers(0, 60), max_size=6))
def test_any_split_gives_the_same(stream: bytes, cuts: list[int]) -> None:
    places = sorted(cut for cut in cuts if cut <= len(stream))
    pieces = [stream[a:b] for a, b in itertools.pairwise([0, *places, len(stream)])]
    assert scanned(pieces, 20) == scanned([stream], 20) == scanned_in_one_buffer(pieces, 20)


@given(streams)
def test_h11_decodes_every_accepted_body_the_same(stream: bytes) -> None:
    outcome = scanned([stream])
    if isinstance(outcome, int) or not outcome[1]:
        return
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + stream)
    connection.next_event()
    payload = b""
    while isinstance(event := connection.next_event(), h11.Data):
        payload += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    assert (payload, len(stream) - len(connection.trailing_data[0])) == (outcome[0], outcome[2])


def test_trailers_and_lines_cut_by_a_read_outlive_the_buffer() -> None:
    body = b'3;a="b"\r\nabc\r\n0\r\nA: b\r\nC: d\r\n\r\n'
    assert scanned_in_one_buffer([body[at : at + 1] for at in range(len(body))]) == (b"abc", True, len(body))
    assert scanned_in_one_buffer([b"0\r\nHo", b"st: x\r\n\r\n"]) == 400


def test_the_words_name_the_fault() -> None:
    with refused(400, "LF without CR in the trailers"):
        ChunkScanner(None).scan(b"0\r\nA: b\n")
    with refused(431, "trailers"):
        ChunkScanner(None).scan(b"0\r\n" + b"A" * 9000)
