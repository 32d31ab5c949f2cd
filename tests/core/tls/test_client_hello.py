"""Reading a ClientHello, whole, in pieces, and hostile ones."""

from __future__ import annotations

import dataclasses
import itertools
import re
import socket
import ssl
import subprocess

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lbproc.core.tls.client_hello import (
    MAX_HELLO,
    MAX_PROTOCOLS,
    MAX_RECEIVED,
    Alert,
    ClientHello,
    HelloBuffer,
    HelloRejected,
    Kind,
    render_alert,
)
from tests.core.tls.hellos import (
    alpn,
    body,
    extension,
    hello,
    hello_of_openssl,
    message,
    records,
    server_name,
    versions,
)

GREASE = 0x3A3A
KEY_SHARES = extension(51, b"x" * 30_000)
BROWSER = hello(
    extension(GREASE, b""),
    server_name(b"WWW.Example.com."),
    extension(0xFE0D, b"\0" + b"e" * 200),
    alpn(b"\x3a\x3a", b"h2", b"http/1.1"),
    versions(GREASE, 0x0304, 0x0303),
    extension(51, b"k" * 1200),
    extension(0x4A4A, b"\0"),
)

Outcome = ClientHello | tuple[Kind, Alert | None]


def read(pieces: list[bytes]) -> Outcome | None:
    """What comes of bytes that arrive in these pieces."""
    buffer = HelloBuffer()
    fed = b""
    for piece in pieces:
        fed += piece
        try:
            found = buffer.feed(piece)
        except HelloRejected as rejected:
            assert buffer.received == fed
            return rejected.kind, rejected.alert
        assert buffer.received == fed
        if found is not None:
            return found
    return None


def good(raw: bytes) -> ClientHello:
    """What a hello says that is taken."""
    found = read([raw])
    assert isinstance(found, ClientHello), found
    return found


def test_a_hello_says_which_host_protocols_and_versions() -> None:
    assert good(BROWSER) == ClientHello(
        server_name="www.example.com",
        alpn=(b"h2", b"http/1.1"),
        session_id=b"",
        versions=(0x0304, 0x0303),
        has_ech=True,
        size=len(BROWSER) - 5,
    )


def test_a_hello_is_kept_without_its_protocols() -> None:
    found = good(BROWSER)
    assert found.without_alpn() == dataclasses.replace(found, alpn=())


def test_what_a_hello_does_not_say_is_absent() -> None:
    for has_extensions in (True, False):
        old = body(legacy_version=0x0302, session_id=b"s" * 32, has_extensions=has_extensions)
        found = good(records(message(old)))
        assert (found.server_name, found.alpn, found.has_ech) == (None, (), False)
        assert found.session_id == b"s" * 32
        assert found.versions == (0x0302,)


def test_everything_behind_the_hello_is_kept() -> None:
    buffer = HelloBuffer()
    early = b"\x17\x03\x03\x00\x05early"
    assert buffer.feed(BROWSER + early) is not None
    assert buffer.received == BROWSER + early
    same_record = HelloBuffer()
    raw = records(message(body()) + b"more")
    assert same_record.feed(raw) is not None
    assert same_record.received == raw


@pytest.mark.parametrize("maximum", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_hello_of_python_is_read(maximum: ssl.TLSVersion) -> None:
    protocols = [f"protocol-{number}" for number in range(900)]
    raw = hello_of_openssl("bücher.example.com", protocols, maximum)
    assert len(raw) > 10_000
    found = good(raw)
    assert found.server_name == "xn--bcher-kva.example.com"
    assert found.alpn == tuple(name.encode() for name in protocols)
    assert (0x0304 in found.versions) is (maximum is ssl.TLSVersion.TLSv1_3)
    assert 0x0303 in found.versions
    assert good(hello_of_openssl(None)).server_name is None


S_CLIENT = "openssl s_client -connect 127.0.0.1:{port} -servername a.test -alpn x,http/1.1"


@pytest.mark.parametrize(
    "command",
    [
        S_CLIENT,
        f"{S_CLIENT} -tls1_2",
        f"{S_CLIENT} -max_send_frag 512",
        "curl -sk --http1.1 --connect-to a.test:443:127.0.0.1:{port} https://a.test/",
    ],
    ids=["s_client", "s_client 1.2", "s_client split", "curl"],
)
def test_the_hellos_of_clients_are_read(command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        port = server.getsockname()[1]
        client = subprocess.Popen(
            command.format(port=port).split(),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(10)
                buffer = HelloBuffer()
                while (found := buffer.feed(connection.recv(100))) is None:
                    pass
        finally:
            client.kill()
            client.wait()
    assert found.server_name == "a.test"
    assert b"http/1.1" in found.alpn
    assert not found.has_ech


def test_every_split_of_a_hello_gives_the_same() -> None:
    whole = good(BROWSER)
    for at in range(1, len(BROWSER)):
        assert read([BROWSER[:at], BROWSER[at:]]) == whole
    small = hello(server_name(b"a.b"), alpn(b"x"))
    for first, second in itertools.combinations(range(1, len(small)), 2):
        assert read([small[:first], small[first:second], small[second:]]) == good(small)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 100, 1400])
def test_a_hello_over_many_records_and_reads_is_the_same(size: int) -> None:
    raw = records(BROWSER[5:], size)
    assert good(raw) == good(BROWSER)
    assert read([raw[at : at + 1] for at in range(len(raw))]) == good(BROWSER)


def test_a_hello_larger_than_a_record_is_read_byte_by_byte() -> None:
    raw = records(message(body(server_name(b"a.test"), KEY_SHARES)))
    assert len(raw) > 16_384
    found = read([raw[at : at + 1] for at in range(len(raw))])
    assert isinstance(found, ClientHello)
    assert found.server_name == "a.test"


def rejected(raw: bytes) -> tuple[Kind, Alert | None]:
    """How it is refused, and that it is however it comes."""
    found = read([raw])
    assert isinstance(found, tuple), found
    assert read([raw[at : at + 1] for at in range(len(raw))]) == found
    return found


@pytest.mark.parametrize("raw", [b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0", b"OPTIONS *", b"POST "])
def test_plain_http_is_told_from_other_protocols(raw: bytes) -> None:
    assert rejected(raw) == (Kind.PLAIN_HTTP, None)


@pytest.mark.parametrize(
    "raw",
    [b"SSH-2.0-OpenSSH", b"get / http", b"\0", b" GET", b"HELO\r\n", b"\x16\x02", b"\x15\x09",
     b"\x80\x05\x02", b"\xff\xff\xff", b"A" * 21 + b" ", b"\r\n", b"*1\r\n"],
)  # fmt: skip
def test_what_is_not_tls_is_refused_without_an_alert(raw: bytes) -> None:
    assert rejected(raw) == (Kind.NOT_TLS, None)


@pytest.mark.parametrize(
    "raw", [b"", b"G", b"GET", b"\x16", b"\x15", b"\x80\x2e", b"\x16\x03\x01\x00\x05\x01"]
)
def test_too_little_says_nothing_yet(raw: bytes) -> None:
    assert read([raw]) is None


def test_the_hello_of_ssl_2_gets_protocol_version() -> None:
    assert rejected(b"\x80\x2e\x01\x00\x02") == (Kind.SSL2, Alert.PROTOCOL_VERSION)
    assert rejected(b"\x80\x2e\x01\x03\x01") == (Kind.SSL2, Alert.PROTOCOL_VERSION)


def content(*extensions: bytes, **fields: bytes) -> bytes:
    """A hello with something wrong in it."""
    return records(message(body(*extensions, **fields)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("raw", "alert"),
    [
        (b"\x15\x03\x01\x00\x02\x02\x28", Alert.UNEXPECTED_MESSAGE),
        (b"\x17\x03", Alert.UNEXPECTED_MESSAGE),
        (b"\x16\x03\x01\x00\x00", Alert.UNEXPECTED_MESSAGE),
        (b"\x16\x03\x01\x00\x01\x02", Alert.UNEXPECTED_MESSAGE),
        (b"\x16\x03\x01\x40\x01", Alert.RECORD_OVERFLOW),
        (records(BROWSER[5:], 100)[:105] + b"\x15", Alert.UNEXPECTED_MESSAGE),
        (records(BROWSER[5:], 100)[:105] + b"\x16\x02", Alert.PROTOCOL_VERSION),
        (records(BROWSER[5:], 100)[:105] + b"\x16\x03\x03\x00\x00", Alert.UNEXPECTED_MESSAGE),
        (content(end=b"x"), Alert.DECODE_ERROR),
        (content(session_id=b"s" * 33), Alert.DECODE_ERROR),
        (content(ciphers=b""), Alert.DECODE_ERROR),
        (content(ciphers=b"\x13\x01\x13"), Alert.DECODE_ERROR),
        (content(compression=b""), Alert.DECODE_ERROR),
        (content(b"\0\0\0"), Alert.DECODE_ERROR),
        (content(b"\0\x2b\0\x09abc"), Alert.DECODE_ERROR),
        (records(message(b"")), Alert.DECODE_ERROR),
        (records(message(body()[:36])), Alert.DECODE_ERROR),
        (content(extension(51, b""), extension(51, b"")), Alert.ILLEGAL_PARAMETER),
        (content(server_name(b"a"), server_name(b"b")), Alert.ILLEGAL_PARAMETER),
        (content(server_name(b"a", kind=1)), Alert.DECODE_ERROR),
        (content(extension(0, b"")), Alert.DECODE_ERROR),
        (content(extension(0, b"\0\0")), Alert.DECODE_ERROR),
        (content(extension(0, b"\0\x04\0\0\1a\0\0\1b")), Alert.DECODE_ERROR),
        (content(extension(0, b"\0\x08\0\0\1a\0\0\1b")), Alert.DECODE_ERROR),
        (content(extension(0, b"\0\x04\0\0\1ax")), Alert.DECODE_ERROR),
        (content(alpn()), Alert.DECODE_ERROR),
        (content(alpn(b"")), Alert.DECODE_ERROR),
        (content(extension(16, b"\0\2\1ax")), Alert.DECODE_ERROR),
        (content(extension(16, b"\0\2\2a")), Alert.DECODE_ERROR),
        (content(versions()), Alert.DECODE_ERROR),
        (content(extension(43, b"\1\3")), Alert.DECODE_ERROR),
        (content(extension(43, b"\2\3\4x")), Alert.DECODE_ERROR),
    ],
)  # fmt: skip
def test_malformed_hellos_are_refused_with_their_alert(raw: bytes, alert: Alert) -> None:
    assert rejected(raw) == (Kind.MALFORMED, alert)


@pytest.mark.parametrize(
    "name",
    [b"", b".", b"a..b", b".a", b"a b", b"a\0.example.com", b"a/b", b"\xc3\xa4.example.com", b"*.example.com",
     b"a" * 64, b"a." * 127 + b"a", b"a:b", b"a,b", b"a\r\n"],
)  # fmt: skip
def test_names_that_are_none_of_a_host_are_refused(name: bytes) -> None:
    assert rejected(hello(server_name(name))) == (Kind.MALFORMED, Alert.UNRECOGNIZED_NAME)


@pytest.mark.parametrize(
    ("name", "read_as"),
    [
        (b"A.Example.COM", "a.example.com"),
        (b"a.example.com.", "a.example.com"),
        (b"_x-1.local", "_x-1.local"),
        (b"localhost", "localhost"),
        (b"a." * 126 + b"a", "a." * 126 + "a"),
        (b"192.0.2.1", None),
        (b"2001:db8::1", None),
        (b"::ffff:192.0.2.1", None),
    ],
)
def test_names_have_one_spelling_and_addresses_are_none(name: bytes, read_as: str | None) -> None:
    assert good(hello(server_name(name))).server_name == read_as


def test_only_the_outer_form_of_an_encrypted_hello_counts_as_one() -> None:
    assert good(hello(extension(0xFE0D, b"\0abc"))).has_ech
    assert not good(hello(extension(0xFE0D, b"\1"))).has_ech
    assert not good(hello(extension(0xFE0D, b""))).has_ech


def test_versions_of_grease_alone_are_none() -> None:
    assert good(hello(versions(GREASE))).versions == ()


def test_a_hello_of_the_largest_size_is_read_and_a_larger_one_refused_at_once() -> None:
    empty = len(message(body(extension(51, b""))))
    largest = message(body(extension(51, b"x" * (MAX_HELLO - empty - 4)), b""))
    assert good(records(largest)).size == MAX_HELLO - 4
    announced = b"\x16\x03\x01\x00\x04\x01" + MAX_HELLO.to_bytes(3, "big")
    assert rejected(announced) == (Kind.TOO_LARGE, Alert.ILLEGAL_PARAMETER)
    assert rejected(b"\x16\x03\x01\x00\x04\x01\xff\xff\xff") == (Kind.TOO_LARGE, Alert.ILLEGAL_PARAMETER)


def test_a_hello_names_a_thousand_protocols_and_no_more() -> None:
    names = [number.to_bytes(2, "big") for number in range(MAX_PROTOCOLS + 1)]
    some = [name for name in names if name[0] != name[1]][:1000]
    assert good(hello(alpn(*some))).alpn == tuple(some)
    assert rejected(hello(alpn(*names))) == (Kind.TOO_LARGE, Alert.ILLEGAL_PARAMETER)


def test_tiny_records_end_at_the_bound() -> None:
    endless = b"\x16\x03\x01\x00\x01\x01" + b"\x16\x03\x01\x00\x01\x00" * MAX_HELLO
    buffer = HelloBuffer()
    header = b"".join(b"\x16\x03\x01\x00\x01" + bytes([byte]) for byte in b"\x01\x00\xf0\x00")
    assert buffer.feed(header) is None
    with pytest.raises(HelloRejected) as caught:
        for at in range(0, len(endless), 6):
            assert buffer.feed(b"\x16\x03\x01\x00\x01\x00") is None, at
            assert len(buffer.received) < MAX_RECEIVED
    assert caught.value.kind is Kind.TOO_LARGE
    assert str(caught.value) == "too_large: the hello is too large"


def test_an_alert_is_one_record() -> None:
    assert render_alert(Alert.UNRECOGNIZED_NAME) == bytes.fromhex("15030300020270")


@given(st.binary(max_size=300), st.sampled_from([b"", b"\x16", b"\x16\x03\x01", b"\x16\x03\x03\x01\x00\x01"]))
def test_hostile_bytes_only_ever_raise_the_one_exception(raw: bytes, start: bytes) -> None:
    stream = start + raw
    whole = read([stream])
    assert read([stream[at : at + 1] for at in range(len(stream))]) == whole


@given(st.data())
def test_mutated_hellos_are_read_or_refused_the_same_however_they_come(data: st.DataObject) -> None:
    raw = bytearray(records(BROWSER[5:], data.draw(st.sampled_from([50, 500, 16_384]))))
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=5)))
    pieces = [bytes(raw[a:b]) for a, b in itertools.pairwise([0, *cuts, len(raw)])]
    assert read(pieces) == read([bytes(raw)])


_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")


@given(st.binary(max_size=80) | st.text("aB1-._:", max_size=260).map(str.encode))
@example(b"a\n")
def test_a_name_that_is_taken_is_a_name(name: bytes) -> None:
    found = read([hello(server_name(name))])
    if isinstance(found, ClientHello) and found.server_name is not None:
        assert len(found.server_name) <= 253
        assert _NAME.fullmatch(found.server_name)
