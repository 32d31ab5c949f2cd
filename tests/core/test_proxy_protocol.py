"""PROXY headers, read and written."""

from __future__ import annotations

import itertools
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproc.core.crc32c import crc32c
from lbproc.core.proxy_protocol import (
    LOCAL,
    MAX_HEADER,
    MAX_LINE,
    NO_FIELDS,
    ProxyFields,
    ProxyHeader,
    ProxyHeaderBuffer,
    ProxyHeaderRejected,
    ProxyTls,
    read_datagram_header,
    render_v1,
    render_v2,
)
from lbproc.types import Address, TcpAddress, UnixAddress

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
V4 = ProxyHeader(TcpAddress("192.0.2.1", 56_324), TcpAddress("192.0.2.2", 443))
V6 = ProxyHeader(TcpAddress("2001:db8::1", 1), TcpAddress("2001:db8::2", 65_535))
LINE = b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n"

Outcome = tuple[ProxyHeader, bytes] | str | None


def read(pieces: list[bytes]) -> Outcome:
    """What comes of bytes that arrive in these pieces: the header and all that is behind it."""
    buffer = ProxyHeaderBuffer()
    for number, piece in enumerate(pieces):
        try:
            found = buffer.feed(piece)
        except ProxyHeaderRejected as rejected:
            return rejected.detail
        if found is not None:
            return found, buffer.take_rest() + b"".join(pieces[number + 1 :])
    return None


def block(content: bytes, family: int = 0x11, command: int = 0x21) -> bytes:
    """A header of version 2."""
    return SIGNATURE + bytes((command, family)) + len(content).to_bytes(2, "big") + content


ADDRESSES = bytes.fromhex("c0000201c0000202dc0401bb")


def field(number: int, content: bytes) -> bytes:
    """One typed field."""
    return bytes((number, len(content) >> 8, len(content) & 0xFF)) + content


def with_fields(*fields: bytes) -> bytes:
    """A header of version 2 with these fields."""
    return block(ADDRESSES + b"".join(fields))


def fields_of(*fields: bytes) -> ProxyFields:
    """What fields say that are taken."""
    found = read([with_fields(*fields)])
    assert isinstance(found, tuple), found
    return found[0].fields


def test_a_line_of_version_1() -> None:
    assert read([LINE + b"GET /"]) == (V4, b"GET /")
    assert render_v1(V4.source, V4.destination) == LINE
    six = b"PROXY TCP6 2001:DB8::1 2001:db8::2 1 65535\r\n"
    assert read([six]) == (V6, b"")
    assert render_v1(V6.source, V6.destination) == six.replace(b"DB8", b"db8")


@pytest.mark.parametrize("rest", [b"", b" ", b" ffff::1 ffff::2 65535 65535", b" \0\xff"])
def test_an_unknown_line_names_nothing(rest: bytes) -> None:
    assert read([b"PROXY UNKNOWN" + rest + b"\r\nx"]) == (LOCAL, b"x")


def test_what_version_1_cannot_say_is_unknown() -> None:
    for source, destination in [
        (None, None),
        (V4.source, V6.destination),
        (V6.source, V4.destination),
        (UnixAddress("/a"), UnixAddress("/b")),
        (V4.source, None),
    ]:
        assert render_v1(source, destination) == b"PROXY UNKNOWN\r\n"


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/1.1\r\n", b"PROXX", b"proxy TCP4", b"P\n", b"PROXY\r\n",
        b"PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r 3\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
        b"PROXY TCP4 192.0.02.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
        b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP6 2001:db8::1%1 2001:db8::2 1 2\r\n",
        b"PROXY TCP6 ::1::2 ::1 1 2\r\n",
        b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY UNKNOWNX\r\n",
        b"PROXY UNKNOWN" + b" " * (MAX_LINE - 14) + b"\r\n",
        b"PROXY TCP4 " + b"1" * MAX_LINE,
    ],
)  # fmt: skip
def test_lines_that_are_not_exactly_right_are_refused(line: bytes) -> None:
    found = read([line])
    assert isinstance(found, str)
    assert read([line[at : at + 1] for at in range(len(line))]) == found


def test_the_longest_line_is_read() -> None:
    line = b"PROXY UNKNOWN".ljust(MAX_LINE - 2) + b"\r\n"
    assert read([line]) == (LOCAL, b"")


def test_headers_of_version_2() -> None:
    assert read([block(ADDRESSES) + b"rest"]) == (V4, b"rest")
    assert render_v2(V4) == block(ADDRESSES)
    assert read([render_v2(V6)]) == (V6, b"")
    udp = ProxyHeader(V4.source, V4.destination, is_datagram=True)
    assert render_v2(udp) == block(ADDRESSES, 0x12)
    assert read_datagram_header(block(ADDRESSES, 0x12) + b"query") == (udp, b"query")
    paths = ProxyHeader(UnixAddress("/run/a"), UnixAddress("/run/b"))
    assert read([render_v2(paths)]) == (paths, b"")
    unnamed = ProxyHeader(None, UnixAddress("/run/b"))
    assert read([render_v2(unnamed)]) == (unnamed, b"")


def test_a_local_header_is_skipped_with_all_that_it_says() -> None:
    assert render_v2(LOCAL) == block(b"", 0, 0x20)
    for content, family in [(b"", 0), (b"\xff" * 9, 0x11), (ADDRESSES, 0x11), (b"abc", 0xFF)]:
        assert read([block(content, family, 0x20) + b"x"]) == (LOCAL, b"x")


def test_what_is_of_no_family_counts_as_what_it_is() -> None:
    for family in (0x00, 0x10, 0x01, 0x32 & 0x30):
        assert read([block(b"\xff" * 7, family)]) == (LOCAL, b"")
    assert read([render_v2(ProxyHeader(V4.source, V6.destination))]) == (LOCAL, b"")
    assert read([render_v2(ProxyHeader(V4.source, UnixAddress("/a")))]) == (LOCAL, b"")


@pytest.mark.parametrize(
    "raw",
    [
        SIGNATURE[:-1] + b"x",
        b"\r\n\r\n\r\n",
        block(ADDRESSES, command=0x11),
        block(ADDRESSES, command=0x22),
        block(ADDRESSES, family=0x41),
        block(ADDRESSES, family=0x13),
        block(ADDRESSES[:-1]),
        block(ADDRESSES, family=0x21),
        block(ADDRESSES, family=0x31),
        block(b"/a".ljust(216, b"x"), family=0x31),
        block(b"/\xff".ljust(216, b"\0"), family=0x31),
        block(b"/a\n".ljust(216, b"\0"), family=0x31),
        SIGNATURE + b"\x21\x11" + (MAX_HEADER - 15).to_bytes(2, "big"),
        SIGNATURE + b"\x20\x00\xff\xff",
    ],
)
def test_headers_that_are_not_exactly_right_are_refused(raw: bytes) -> None:
    found = read([raw])
    assert isinstance(found, str)
    assert read([raw[at : at + 1] for at in range(len(raw))]) == found


def test_the_largest_header_is_read() -> None:
    padding = field(0x04, bytes(MAX_HEADER - 16 - 12 - 3))
    raw = with_fields(padding)
    assert len(raw) == MAX_HEADER
    assert read([raw[at : at + 1] for at in range(len(raw))]) == (V4, b"")


TLS = ProxyTls("TLSv1.3", "TLS_AES_128_GCM_SHA256", "Änne", has_certificate=True, is_verified=True)
FIELDS = ProxyFields(b"http/1.1", "www.example.com", b"\0id", TLS)


def test_known_fields_are_read_and_others_skipped() -> None:
    ssl = bytes.fromhex("0700000000") + field(0x21, b"TLSv1.3") + field(0x24, b"RSA-SHA256")
    ssl += field(0x23, b"TLS_AES_128_GCM_SHA256") + field(0x22, "Änne".encode())
    assert (
        fields_of(
            field(0x04, b"pad"), field(0x01, b"http/1.1"), field(0x02, b"WWW.example.com"),
            field(0xE0, b"\xff"), field(0x05, b"\0id"), field(0x20, ssl), field(0x30, b"ns"),
            field(0x04, b""),
        )
        == FIELDS
    )  # fmt: skip
    assert read([render_v2(ProxyHeader(V4.source, V4.destination, fields=FIELDS))]) == (
        ProxyHeader(V4.source, V4.destination, fields=FIELDS),
        b"",
    )


def test_what_is_said_of_tls_and_certificates() -> None:
    assert fields_of(field(0x20, bytes(5))).tls is None
    assert fields_of(field(0x20, b"\1\0\0\0\1")).tls == ProxyTls()
    assert fields_of(field(0x20, b"\1\0\0\0\0")).tls == ProxyTls()
    assert fields_of(field(0x20, b"\5\0\0\0\0")).tls == ProxyTls(has_certificate=True, is_verified=True)
    assert fields_of(field(0x20, b"\3\0\0\0\x0a")).tls == ProxyTls(has_certificate=True)


def test_an_authority_that_is_an_address_names_no_host() -> None:
    assert fields_of(field(0x02, b"192.0.2.1")).authority is None


@pytest.mark.parametrize(
    "fields",
    [
        [b"\1"], [b"\1\0"], [b"\1\0\1"], [field(0x01, b"a")[:-1]],
        [field(0x01, b"a"), field(0x01, b"a")],
        [field(0x01, b"a" * 256)],
        [field(0x02, b"a b")], [field(0x02, b"")],
        [field(0x03, b"abc")], [field(0x03, b"\0\0\0\0")],
        [field(0x05, b"a" * 129)],
        [field(0x20, b"\1\0\0\0")],
        [field(0x20, b"\1\0\0\0\0\x21")],
        [field(0x20, b"\1\0\0\0\0" + field(0x21, b"\xff"))],
        [field(0x20, b"\1\0\0\0\0" + field(0x21, b"a\n"))],
        [field(0x20, b"\1\0\0\0\0" + field(0x22, b"a" * 257))],
        [field(0x20, b"\1\0\0\0\0" + field(0x22, b"a") + field(0x22, b"b"))],
    ],
)  # fmt: skip
def test_fields_that_are_not_right_are_refused(fields: list[bytes]) -> None:
    assert isinstance(read([with_fields(*fields)]), str)


def test_a_checksum_covers_the_whole_header() -> None:
    before, after = field(0x01, b"a"), field(0x04, b"pad")
    zeroed = with_fields(before, field(0x03, bytes(4)), after)
    good = with_fields(before, field(0x03, crc32c(zeroed).to_bytes(4, "big")), after)
    found = read([good])
    assert isinstance(found, tuple)
    assert found[0].fields == ProxyFields(alpn=b"a")
    for at in {*range(16, len(good))} - {good.index(b"\3\0\4")}:
        wrong = bytearray(good)
        wrong[at] ^= 0x01
        assert not isinstance(read([bytes(wrong)]), tuple), at


def test_a_datagram_has_a_whole_header_of_version_2() -> None:
    for raw in (b"", LINE, SIGNATURE, block(ADDRESSES)[:-1], b"query"):
        with pytest.raises(ProxyHeaderRejected):
            read_datagram_header(raw)


def test_of_tls_nothing_is_said_that_would_be_refused_for_its_length() -> None:
    for name, said in (("x" * 256, "x" * 256), ("x" * 257, ""), ("ä" * 200, ""), ("x" * 4000, "")):
        tls = ProxyTls("TLSv1.3", common_name=name, has_certificate=True, is_verified=True)
        raw = render_v2(ProxyHeader(V4.source, V4.destination, fields=ProxyFields(tls=tls)))
        header = ProxyHeaderBuffer().feed(raw)
        assert header is not None
        assert header.fields.tls == ProxyTls("TLSv1.3", "", said, True, True)


def test_fields_that_do_not_fit_are_not_sent() -> None:
    with pytest.raises(ValueError, match="larger"):
        render_v2(ProxyHeader(V4.source, V4.destination, fields=ProxyFields(unique_id=b"x" * MAX_HEADER)))


_PORTS = st.integers(0, 65_535)
_SHORT = st.text(st.characters(codec="ascii", categories=("L", "N", "P")), max_size=40)


def _pairs(family: type[IPv4Address] | type[IPv6Address]) -> st.SearchStrategy[tuple[Address, Address]]:
    one = st.builds(TcpAddress, st.ip_addresses(v=4 if family is IPv4Address else 6).map(str), _PORTS)
    return st.tuples(one, one)


_NAMES = st.from_regex(r"[a-z0-9-]{1,20}(\.[a-z]{1,20}){1,3}", fullmatch=True)
_TLS = st.builds(ProxyTls, _SHORT, _SHORT, _SHORT) | st.builds(
    ProxyTls, has_certificate=st.just(True), is_verified=st.booleans()
)
_FIELDS = st.builds(
    ProxyFields, st.binary(max_size=255), st.none() | _NAMES, st.binary(max_size=128), st.none() | _TLS
)
_PATHS = st.text("abc/-.é", min_size=1, max_size=50).map(UnixAddress)
_HEADERS = st.builds(
    lambda pair, is_datagram, fields: ProxyHeader(pair[0], pair[1], is_datagram, fields),
    _pairs(IPv4Address) | _pairs(IPv6Address) | st.tuples(_PATHS, _PATHS),
    st.booleans(),
    st.just(NO_FIELDS) | _FIELDS,
)


@given(_HEADERS, st.binary(max_size=20), st.data())
def test_what_is_written_is_read_however_it_comes(
    header: ProxyHeader, rest: bytes, data: st.DataObject
) -> None:
    raw = render_v2(header) + rest
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=5)))
    assert read([raw[a:b] for a, b in itertools.pairwise([0, *cuts, len(raw)])]) == (header, rest)


@given(_pairs(IPv4Address) | _pairs(IPv6Address), st.binary(max_size=20), st.integers(0, 110))
def test_lines_that_are_written_are_read_however_they_come(
    pair: tuple[Address, Address], rest: bytes, at: int
) -> None:
    raw = render_v1(*pair) + rest
    assert len(raw) - len(rest) <= MAX_LINE
    assert read([raw[:at], raw[at:]]) == (ProxyHeader(*pair), rest)


@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11\x00\x40"]),
)
def test_hostile_bytes_only_ever_raise_the_one_exception(raw: bytes, start: bytes) -> None:
    stream = start + raw
    whole = read([stream])
    assert read([stream[at : at + 1] for at in range(len(stream))]) == whole


@given(st.data(), _HEADERS)
def test_mutated_headers_are_read_or_refused_the_same_however_they_come(
    data: st.DataObject, header: ProxyHeader
) -> None:
    raw = bytearray(render_v2(header))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    stream = bytes(raw)
    assert read([stream[at : at + 1] for at in range(len(stream))]) == read([stream])
