"""Requests that are refused by their head: a status, a close, and not a byte to the backend.

Each row of docs/http-behaviour.md that refuses a head has its cases here. Each is tried alone, cut into
pieces, and behind a good request in the same segment; behind each stands a request that must not be served.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.e2e.harness_dialogue import END, GET, KNOWN, OK, POST, SMUGGLED, End, Manner, assert_refused

if TYPE_CHECKING:
    from tests.e2e.harness_dialogue import Proxy


@dataclass(frozen=True)
class Refused:
    """A request and the status that it gets.

    Args:
        name: says what is wrong with it.
        section: of RFC 9110 or 9112, or another document.
        sent: the bytes.
        status: that answers them.
        listener: which of the shared lbproc's.
    """

    name: str
    section: str
    sent: bytes
    status: int = 400
    listener: str = "web"


def target(octets: bytes) -> bytes:
    return b"GET " + octets + b" HTTP/1.1\r\nHost: a\r\n\r\n"


def host(octets: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: " + octets + b"\r\n\r\n"


def field(line: bytes) -> bytes:
    return GET + line + b"\r\n\r\n"


def length(octets: bytes) -> bytes:
    return POST + b"Content-Length: " + octets + b"\r\n\r\nhi"


def coding(octets: bytes) -> bytes:
    return POST + b"Transfer-Encoding: " + octets + b"\r\n\r\n0\r\n\r\n"


LINES = [
    Refused("LF ends the request line", "9112 2.2", b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
    Refused("LF ends a field", "9112 2.2", b"GET / HTTP/1.1\r\nHost: a\nA: b\r\n\r\n"),
    Refused("LF ends every line", "9112 2.2", b"GET / HTTP/1.1\nHost: a\n\n"),
    Refused("LF is the empty line", "9112 2.2", GET + b"\n"),
    Refused(
        "LF hides a transfer coding", "9112 2.2", POST + b"A: b\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    Refused("LF hides a length", "9112 2.2", POST + b"A: b\nContent-Length: 36\r\n\r\n"),
    Refused("CR in a value", "9112 2.2", field(b"A: b\rc")),
    Refused("CR hides a transfer coding", "9112 2.2", POST + b"A: b\rTransfer-Encoding: chunked\r\n\r\n"),
    Refused("CR CR LF ends a field", "9112 2.2", field(b"A: b\r")),
    Refused("CR in the target", "9112 2.2", target(b"/a\rb")),
    Refused("CR in a name", "9112 2.2", field(b"A\rB: c")),
    Refused("CR before the request line", "9112 2.2", b"\r" + GET + END),
    Refused("LF before the request line", "9112 2.2", b"\n" + GET + END),
    Refused("two empty lines before the request line", "9112 2.2", b"\r\n\r\n" + GET + END),
    Refused("space before the request line", "9112 3", b" " + GET + END),
    Refused("NUL in a value", "9110 5.5", field(b"A: b\0c")),
    Refused("NUL ends a value", "9110 5.5", field(b"A: b\0")),
    Refused("NUL in a name", "9110 5.1", field(b"A\0B: c")),
    Refused("control byte in a value", "9110 5.5", field(b"A: b\x01c")),
    Refused("escape in a value", "9110 5.5", field(b"A: \x1b[2J")),
    Refused("vertical tab in a value", "9110 5.5", field(b"A: b\x0bc")),
    Refused("form feed in a value", "9110 5.5", field(b"A: b\x0cc")),
    Refused("DEL in a value", "9110 5.5", field(b"A: b\x7f")),
    Refused("folded by a space", "9112 5.2", field(b"A: b\r\n c")),
    Refused("folded by a tab", "9112 5.2", field(b"A: b\r\n\tc")),
    Refused("folded transfer coding", "9112 5.2", POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    Refused("fold before the first field", "9112 2.2", b"GET / HTTP/1.1\r\n A: b\r\nHost: a\r\n\r\n"),
    Refused("line of a space", "9112 5.2", GET + b" \r\n\r\n"),
    Refused("space before the colon", "9112 5.1", field(b"A : b")),
    Refused("tab before the colon", "9112 5.1", field(b"A\t: b")),
    Refused("space before the colon of a length", "9112 5.1", POST + b"Content-Length : 2\r\n\r\nhi"),
    Refused("space before the colon of a coding", "9112 5.1", POST + b"Transfer-Encoding : chunked\r\n\r\n"),
    Refused("empty name", "9110 5.1", field(b": b")),
    Refused(
        "empty name in front of a transfer coding",
        "9110 5.1",
        GET + b": b\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    Refused("line without a colon", "9112 5", field(b"Ab")),
    Refused("space in a name", "9110 5.6.2", field(b"A B: c")),
    Refused("parenthesis in a name", "9110 5.6.2", field(b"A(B: c")),
    Refused("slash in a name", "9110 5.6.2", field(b"A/B: c")),
    Refused("quotation mark in a name", "9110 5.6.2", field(b'"A": c')),
    Refused("at sign in a name", "9110 5.6.2", field(b"A@B: c")),
    Refused("byte above 0x7F in a name", "9110 5.6.2", field(b"\xc3\xa4: c")),
    Refused("TLS", "", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03"),
    Refused("SSH", "9112 3", b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
    Refused(
        "a PROXY header that nobody expects", "9112 3", b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n" + GET + END
    ),
    Refused("request line without an end", "9110 15.5.15", b"GET /" + b"a" * 2000, 414, "small"),
    Refused("too long a target", "9110 15.5.15", target(b"/" + b"a" * 1100), 414, "small"),
    Refused("head without an end", "6585 5", GET + b"A: " + b"b" * 2000, 431, "small"),
    Refused("too large a head", "6585 5", field(b"A: " + b"b" * 1100), 431, "small"),
    Refused("too many fields", "6585 5", GET + b"A: b\r\n" * 10 + END, 431, "small"),
    Refused("too many fields by default", "6585 5", GET + b"A: b\r\n" * 100 + END, 431),
]

REQUEST_LINES = [
    Refused("two spaces before the target", "9112 3", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    Refused("two spaces before the version", "9112 3", b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n"),
    Refused("tab for a space", "9112 3", b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    Refused("space after the version", "9112 3", b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
    Refused("four words", "9112 3", b"GET / x HTTP/1.1\r\nHost: a\r\n\r\n"),
    Refused("no target", "9112 3", b"GET HTTP/1.1\r\nHost: a\r\n\r\n"),
    Refused("no method", "9112 3", b"/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    Refused("empty method", "9112 3.1", b" / HTTP/1.1\r\nHost: a\r\n\r\n"),
    Refused("parenthesis in the method", "9110 9.1", b"GE(T / HTTP/1.1\r\nHost: a\r\n\r\n"),
    Refused("colon in the method", "9110 9.1", b"GET: / HTTP/1.1\r\nHost: a\r\n\r\n"),
    Refused("byte above 0x7F in the method", "9110 9.1", b"G\xcbT / HTTP/1.1\r\nHost: a\r\n\r\n"),
    Refused("HTTP/0.9", "9112 3", b"GET /\r\n\r\n"),
    Refused("version in small letters", "9112 2.3", b"GET / http/1.1\r\nHost: a\r\n\r\n"),
    Refused("no minor version", "9110 15.6.6", b"GET / HTTP/1\r\nHost: a\r\n\r\n", 505),
    Refused("minor version without digits", "9112 2.3", b"GET / HTTP/1.\r\nHost: a\r\n\r\n"),
    Refused("minor version of two digits", "9110 15.6.6", b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", 505),
    Refused("version with a zero in front", "9110 15.6.6", b"GET / HTTP/01.1\r\nHost: a\r\n\r\n", 505),
    Refused("version of three numbers", "9112 2.3", b"GET / HTTP/1.1.1\r\nHost: a\r\n\r\n"),
    Refused("HTTP/1.2", "9110 15.6.6", b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
    Refused("HTTP/1.9", "9110 15.6.6", b"GET / HTTP/1.9\r\nHost: a\r\n\r\n", 505),
    Refused("HTTP/0.9 as a version", "9110 15.6.6", b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
    Refused("HTTP/2.0", "9110 15.6.6", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    Refused("HTTP/3", "9110 15.6.6", b"GET / HTTP/3\r\nHost: a\r\n\r\n", 505),
    Refused("HTTP/2 preface", "9113 3.4", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    Refused("another protocol's version", "9112 3", b"GET / RTSP/1.0\r\nHost: a\r\n\r\n"),
    Refused("CONNECT", "9110 9.3.6", b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 501),
    Refused("CONNECT with a path", "9110 9.3.6", b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    Refused("CONNECT in small letters", "9110 9.3.6", b"connect a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 501),
    Refused("fragment", "9112 3.2", target(b"/a#b")),
    Refused("fragment at the end", "9112 3.2", target(b"/a#")),
    Refused("byte above 0x7F in the target", "9112 3.2", target(b"/\xc3\xa4")),
    Refused("control byte in the target", "9112 3.2", target(b"/\x01")),
    Refused("NUL in the target", "9112 3.2", target(b"/\0")),
    Refused("DEL in the target", "9112 3.2", target(b"/\x7f")),
    Refused("tab in the target", "9112 3.2", target(b"/a\tb")),
    Refused("* with GET", "9112 3.2.4", target(b"*")),
    Refused("relative path", "9112 3.2", target(b"a/b")),
    Refused("query without a path", "9112 3.2", target(b"?a=b")),
    Refused("authority for a target", "9112 3.2.3", target(b"a:80")),
    Refused("https address", "9112 3.2.2", target(b"https://a/")),
    Refused("ftp address", "9112 3.2.2", target(b"ftp://a/")),
    Refused("http address without slashes", "9112 3.2.2", target(b"http:/a/")),
    Refused("http address without a host", "9112 3.2.2", target(b"http:///")),
    Refused("http address with a user", "9110 4.2.4", target(b"http://u@a/")),
    Refused("http address of another host", "9112 3.2.2", target(b"http://b/")),
    Refused("http address of another port", "9112 3.2.2", target(b"http://a:81/")),
    Refused("http address of the default port", "9112 3.2.2", target(b"http://a:80/")),
    Refused("http address and no Host", "9112 3.2", b"GET http://a/ HTTP/1.1\r\n\r\n"),
    Refused(
        "http address of another host on 1.0", "9112 3.2.2", b"GET http://b/ HTTP/1.0\r\nHost: a\r\n\r\n"
    ),
    Refused(
        "http address and two hosts", "9112 3.2", b"GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"
    ),
]

HOSTS = [
    Refused("no Host", "9112 3.2", b"GET / HTTP/1.1\r\n\r\n"),
    Refused("no Host among fields", "9112 3.2", b"GET / HTTP/1.1\r\nA: b\r\nX-Host: a\r\n\r\n"),
    Refused("two Hosts", "9112 3.2", field(b"Host: b")),
    Refused("two equal Hosts", "9112 3.2", field(b"host: a")),
    Refused("two Hosts on 1.0", "9112 3.2", b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
    Refused("empty Host", "9110 7.2", host(b"")),
    Refused("list of hosts", "9110 7.2", host(b"a, b")),
    Refused("comma in the host", "9110 7.2", host(b"a,b")),
    Refused("space in the host", "9110 7.2", host(b"a b")),
    Refused("path in the host", "9110 7.2", host(b"a/b")),
    Refused("path and user in the host", "9110 7.2", host(b"a/b@c")),
    Refused("user in the host", "9110 7.2", host(b"u@a")),
    Refused("query in the host", "9110 7.2", host(b"a?b")),
    Refused("fragment in the host", "9110 7.2", host(b"a#b")),
    Refused("backslash in the host", "9110 7.2", host(b"a\\b")),
    Refused("percent sign in the host", "9110 7.2", host(b"a%2fb")),
    Refused("quotation mark in the host", "9110 7.2", host(b'a"')),
    Refused("angle bracket in the host", "9110 7.2", host(b"<a>")),
    Refused("byte above 0x7F in the host", "9110 7.2", host(b"\xc3\xa4")),
    Refused("scheme in the host", "9110 7.2", host(b"http://a")),
    Refused("empty label", "9110 7.2", host(b"a..b")),
    Refused("dot in front", "9110 7.2", host(b".a")),
    Refused("port alone", "9110 7.2", host(b":80")),
    Refused("port that is no number", "9110 7.2", host(b"a:b")),
    Refused("signed port", "9110 7.2", host(b"a:+80")),
    Refused("port above 65535", "9110 7.2", host(b"a:65536")),
    Refused("port of six digits", "9110 7.2", host(b"a:000080")),
    Refused("two ports", "9110 7.2", host(b"a:80:80")),
    Refused("IPv6 address without brackets", "9110 7.2", host(b"::1")),
    Refused("bracket that does not close", "9110 7.2", host(b"[::1")),
    Refused("no address in brackets", "9110 7.2", host(b"[a]")),
    Refused("zone in brackets", "6874", host(b"[fe80::1%25eth0]")),
    Refused("too long a host", "9110 7.2", host(b"a" * 300)),
]

FRAMING = [
    Refused(
        "length, then coding",
        "9112 6.1",
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    Refused(
        "coding, then length",
        "9112 6.1",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    ),
    Refused(
        "length of 0 and coding",
        "9112 6.1",
        POST + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    Refused(
        "length and unknown coding", "9112 6.1", POST + b"Content-Length: 2\r\nTransfer-Encoding: x\r\n\r\nhi"
    ),
    Refused(
        "coding on 1.0",
        "9112 6.1",
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    Refused(
        "coding and keep-alive on 1.0",
        "9112 6.1",
        b"POST / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    Refused("two equal lengths", "9112 6.3", POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi"),
    Refused("two lengths", "9112 6.3", POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi!"),
    Refused(
        "two lengths in two spellings", "9112 6.3", POST + b"Content-Length: 2\r\ncontent-length: 2\r\n\r\nhi"
    ),
    Refused(
        "two lengths far apart",
        "9112 6.3",
        POST + b"Content-Length: 2\r\nA: b\r\nContent-Length: 0\r\n\r\nhi",
    ),
    Refused("list of equal lengths", "9112 6.3", length(b"2, 2")),
    Refused("list of lengths", "9112 6.3", length(b"2,3")),
    Refused("positive length", "9110 8.6", length(b"+2")),
    Refused("negative length", "9110 8.6", length(b"-2")),
    Refused("empty length", "9110 8.6", length(b"")),
    Refused("length of spaces", "9110 8.6", length(b"  ")),
    Refused("hexadecimal length", "9110 8.6", length(b"0x2")),
    Refused("length in hexadecimal digits", "9110 8.6", length(b"a")),
    Refused("fractional length", "9110 8.6", length(b"2.0")),
    Refused("length with an exponent", "9110 8.6", length(b"2e0")),
    Refused("length with an underscore", "9110 8.6", length(b"0_2")),
    Refused("length with a parameter", "9110 8.6", length(b"2;a")),
    Refused("length in two words", "9110 8.6", length(b"1 2")),
    Refused("quoted length", "9110 8.6", length(b'"2"')),
    Refused("length in digits of another script", "9110 8.6", length("٢".encode())),
    Refused("length of 19 digits", "9110 8.6", length(b"0000000000000000002")),
    Refused("length that overflows 64 bits", "9110 8.6", length(b"18446744073709551618")),
    Refused("bad length on GET", "9110 8.6", GET + b"Content-Length: x\r\n\r\n"),
    Refused("unknown coding", "9112 6.1", coding(b"xchunked"), 501),
    Refused("chunked with a letter behind it", "9112 6.1", coding(b"chunkedx"), 501),
    Refused("coding after chunked", "9112 6.1", coding(b"chunked, identity"), 501),
    Refused("coding before chunked", "9112 6.1", coding(b"gzip, chunked"), 501),
    Refused("chunked twice", "9112 6.1", coding(b"chunked, chunked"), 501),
    Refused("coding without chunked", "9112 6.3", coding(b"gzip"), 501),
    Refused("identity", "9112 7", coding(b"identity"), 501),
    Refused("comma before chunked", "9112 6.1", coding(b", chunked"), 501),
    Refused("comma after chunked", "9112 6.1", coding(b"chunked,"), 501),
    Refused("chunked with a parameter", "9112 7", coding(b"chunked;q=1"), 501),
    Refused("quoted chunked", "9112 6.1", coding(b'"chunked"'), 501),
    Refused("vertical tab before chunked", "9110 5.5", coding(b"\x0bchunked")),
    Refused("chunked behind a NUL", "9110 5.5", coding(b"\0chunked")),
    Refused("empty coding", "9112 6.1", coding(b"")),
    Refused(
        "two codings",
        "9112 6.1",
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    Refused(
        "two codings of which one is unknown",
        "9112 6.1",
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n\r\n0\r\n\r\n",
    ),
    Refused("Content_Length", "", POST + b"Content_Length: 2\r\n\r\nhi"),
    Refused("Content_Length beside a length", "", POST + b"content_length: 9\r\nContent-Length: 2\r\n\r\nhi"),
    Refused("Transfer_Encoding", "", POST + b"Transfer_Encoding: chunked\r\n\r\n0\r\n\r\n"),
    Refused(
        "Transfer_Encoding where underscores pass",
        "",
        POST + b"Transfer_Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "underscores_forwarded",
    ),
    Refused("length above the limit", "9110 15.5.14", length(b"101"), 413, "small"),
    Refused("length above the default limit", "9110 15.5.14", length(b"1073741825"), 413),
]

FIELDS = [
    Refused("Connection that is no list", "9110 7.6.1", field(b"Connection: close keep-alive")),
    Refused("Connection with a parameter", "9110 7.6.1", field(b"Connection: close; a")),
    Refused("quoted Connection", "9110 7.6.1", field(b'Connection: "close"')),
    Refused("Connection in 8 bit", "9110 7.6.1", field(b"Connection: \xe9")),
    Refused(
        "Connection names the length",
        "9110 7.6.1",
        POST + b"Connection: close, Content-Length\r\nContent-Length: 2\r\n\r\nhi",
    ),
    Refused(
        "Connection names the coding",
        "9110 7.6.1",
        POST + b"Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    Refused("Connection names Host", "9110 7.6.1", field(b"Connection: Host")),
    Refused("Connection names Via", "9110 7.6.1", field(b"Connection: via")),
    Refused("Connection names X-Forwarded-For", "9110 7.6.1", field(b"Connection: close, X-Forwarded-For")),
    Refused("Connection names X-Forwarded-Anything", "9110 7.6.1", field(b"Connection: x-forwarded-user")),
    Refused("Connection names Forwarded", "9110 7.6.1", field(b"Connection: forwarded")),
    Refused("Connection names X-Real-IP", "9110 7.6.1", field(b"Connection: X-Real-IP")),
    Refused("Connection names X-Request-Id", "9110 7.6.1", field(b"Connection: X-Request-Id")),
    Refused("Connection names traceparent", "9110 7.6.1", field(b"Connection: traceparent")),
    Refused(
        "Connection names Authorization",
        "9110 7.6.1",
        field(b"Authorization: x\r\nConnection: Authorization"),
    ),
    Refused("Connection names Cookie", "9110 7.6.1", field(b"Cookie: a=b\r\nConnection: cookie")),
    Refused("Connection names Content_Length", "9110 7.6.1", field(b"Connection: content_length")),
    Refused("second Connection names Host", "9110 7.6.1", field(b"Connection: close\r\nConnection: host")),
    Refused("unknown expectation", "9110 10.1.1", field(b"Expect: x"), 417),
    Refused(
        "expectation with another",
        "9110 10.1.1",
        POST + b"Expect: 100-continue, x\r\nContent-Length: 2\r\n\r\nhi",
        417,
    ),
    Refused(
        "expectation twice",
        "9110 10.1.1",
        POST + b"Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
        417,
    ),
    Refused("expectation with a parameter", "9110 10.1.1", field(b"Expect: 100-continue;a=b"), 417),
    Refused("empty expectation", "9110 10.1.1", field(b"Expect:"), 417),
    Refused("unknown expectation on 1.0", "9110 10.1.1", b"GET / HTTP/1.0\r\nExpect: x\r\n\r\n", 417),
    Refused("name with an underscore where refused", "", field(b"X_A: b"), 400, "underscores_rejected"),
]

ALL = [*LINES, *REQUEST_LINES, *HOSTS, *FRAMING, *FIELDS]


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_request_is_refused_and_nothing_of_it_goes_on(proxy: Proxy, case: Refused) -> None:
    for sent, manner, behind in (
        (case.sent + SMUGGLED, Manner.AT_ONCE, KNOWN),
        (case.sent, Manner.AT_ONCE, KNOWN),
        (case.sent, Manner.BYTE_BY_BYTE, SMUGGLED),
    ):
        with proxy.client(case.listener) as client:
            client.send(sent, manner).send(behind)
            answer, end = client.read_rest()
            client.send(behind)
        assert_refused(answer, case.status)
        assert end is End.CLOSED
    proxy.settle()
    assert not proxy.backends_waiting()


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_request_is_refused_behind_a_good_one_too(proxy: Proxy, case: Refused) -> None:
    client = proxy.client(case.listener)
    client.send(GET + END + case.sent + SMUGGLED)
    backend = proxy.backend()
    assert backend.read_head().startswith(b"GET / HTTP/1.1\r\n")
    backend.send(OK)
    answer, end = client.read_rest()
    assert answer.startswith(OK)
    assert_refused(answer.removeprefix(OK), case.status)
    assert end is End.CLOSED
    client.close()
    proxy.settle()
    backend.assert_silent()
    assert not proxy.backends_waiting()
