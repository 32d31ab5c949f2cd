"""Good heads, heads made of parts in any order, and what becomes of them when a few bytes or lines change.

Faster than hypothesis by far, for tests that need millions. All from a seeded generator.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

CURL = b"GET /a HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n"
WRK = b"GET /a/7?b=c HTTP/1.1\r\nHost: a.example:80\r\n\r\n"
BROWSER = (
    b"GET /articles/17?page=2&sort=recent HTTP/1.1\r\nHost: www.example.com\r\nConnection: keep-alive\r\n"
    b'sec-ch-ua: "Chromium";v="124", "Not-A.Brand";v="99"\r\nsec-ch-ua-mobile: ?0\r\n'
    b"Upgrade-Insecure-Requests: 1\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\n"
    b"Accept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8\r\nSec-Fetch-Site: same-origin\r\n"
    b"Referer: https://www.example.com/articles/\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n"
    b"Accept-Language: en-GB,en;q=0.9\r\nCookie: _ga=GA1.1.2.3; session=0123456789abcdef; theme=dark\r\n\r\n"
)
SDK_POST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: api.example.com\r\nAccept-Encoding: gzip, deflate\r\n"
    b"Connection: keep-alive\r\nAccept: application/json\r\nContent-Type: application/json\r\n"
    b"User-Agent: Example/Python 1.30.1\r\nX-Stainless-Lang: python\r\nAuthorization: Bearer sk-0123\r\n"
    b"Content-Length: 402\r\n\r\n"
)
CHUNKED_PUT = (
    b"PUT /up HTTP/1.1\r\nhost: [::1]:8000\r\nuser-agent: node\r\ntransfer-encoding: chunked\r\n"
    b"connection: close\r\n\r\n"
)
GOOD_REQUESTS = [CURL, WRK, BROWSER, SDK_POST, CHUNKED_PUT]

NGINX = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Mon, 23 Nov 2026 20:00:00 GMT\r\n"
    b"Content-Type: text/html\r\nContent-Length: 612\r\nLast-Modified: Tue, 10 Nov 2026 10:00:00 GMT\r\n"
    b'Connection: keep-alive\r\nETag: "6592-264"\r\nAccept-Ranges: bytes\r\n\r\n'
)
UVICORN = (
    b"HTTP/1.1 404 Not Found\r\ndate: Mon, 23 Nov 2026 20:00:00 GMT\r\nserver: uvicorn\r\n"
    b"content-length: 22\r\ncontent-type: application/json\r\n\r\n"
)
GUNICORN = (
    b"HTTP/1.1 302 Found\r\nServer: gunicorn\r\nDate: Mon, 23 Nov 2026 20:00:00 GMT\r\nConnection: close\r\n"
    b"Location: /login\r\nSet-Cookie: a=b; Path=/\r\nSet-Cookie: c=d\r\nContent-Length: 0\r\n\r\n"
)
GO = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Date: Mon, 23 Nov 2026 20:00:00 GMT\r\nContent-Length: 12\r\n\r\n"
)
NODE = (
    b'HTTP/1.1 200 OK\r\nX-Powered-By: Express\r\nContent-Type: application/json\r\nETag: W/"1f-a"\r\n'
    b"Connection: keep-alive\r\nKeep-Alive: timeout=5\r\nTransfer-Encoding: chunked\r\n\r\n"
)
NO_REASON = b"HTTP/1.1 204 \r\ndate: Mon, 23 Nov 2026 20:00:00 GMT\r\nserver: hypercorn-h11\r\n\r\n"
NO_LENGTH = b"HTTP/1.1 200\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
GOOD_RESPONSES = [NGINX, UVICORN, GUNICORN, GO, NODE, NO_REASON, NO_LENGTH]

_LINES = [
    *(line for head in [*GOOD_REQUESTS, *GOOD_RESPONSES] for line in head.split(b"\r\n")[1:-2]),
    b"Host: a", b"Host: b", b"host: a", b"Host: a/b@c", b"Host: a, b", b"Host:", b"Host: ", b"Host: [::1",
    b"Host: a:99999", b"Host: a ", b"Host:a", b"Host:  a", b"HOST: a", b"Host: \xe9", b"Host_: a",
    b"Content-Length: 3", b"Content-Length: 0", b"content-length: 03", b"Content-Length: 3, 3",
    b"Content-Length: +3", b"Content-Length: -3", b"Content-Length:", b"Content-Length: ",
    b"Content-Length: 0x3", b"Content-Length: 3 ", b"Content-Length: 1234567890123456789",
    b"Content-Length: 123456789012345678", b"Content-Length: \xb2", b"Content_Length: 3",
    b"Content-Length : 3", b"Transfer-Encoding: chunked", b"Transfer-Encoding: Chunked",
    b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked, identity", b"Transfer-Encoding:",
    b"Transfer-Encoding: xchunked", b"Transfer-Encoding: \x0bchunked", b"Transfer-Encoding: chunked\x00",
    b"Transfer_Encoding: chunked", b"Transfer-Encoding\t: chunked", b"transfer-encoding: chunked",
    b"Connection: close", b"Connection: Keep-Alive", b"Connection: close, Content-Length",
    b"Connection: Host", b"Connection: X-Forwarded-For", b"Connection: Authorization", b"Connection: a b",
    b"Connection: Transfer-Encoding", b"Connection: upgrade", b"connection:", b"Connection: X-A",
    b"Connection: forwarded", b"Upgrade: websocket", b"Upgrade: h2c", b"Expect: 100-continue",
    b"Expect: x", b"Expect: 100-continue, x", b"X-A:  b c \t", b"X-A:", b"X-A: ", b"X-A:b", b"X-A : b",
    b" folded", b"\tfolded", b"X-A: a\r\n folded", b"X-A: \xff\x80", b"X-A: a\x00b", b"X-A: a\x0bb",
    b"X-A: \x7f", b"X-A: a\nTransfer-Encoding: chunked", b"X-A: a\rb", b"X-A: a\r", b"X-A: a\tb", b": empty",
    b"no colon", b"X A: b", b"X\xe9: b", b"X(: b", b"X_A: 1", b"", b"TE: trailers", b"Trailer: x",
    b"Cookie: a=b", b"Cookie: c=d", b"Authorization: Basic YTpi", b"X-Forwarded-For: 1.2.3.4",
]  # fmt: skip
_REQUEST_STARTS = [
    b"GET / HTTP/1.1", b"POST /a?b=c HTTP/1.1", b"DELETE /a?? HTTP/1.1", b"OPTIONS * HTTP/1.1",
    b"HEAD /'!$&()+,;=:@%20~[]{}|\\^`\"<> HTTP/1.1", b"GET * HTTP/1.1", b"GET http://a/x HTTP/1.1",
    b"GET //b/x HTTP/1.1", b"CONNECT a:1 HTTP/1.1", b"CONNECT / HTTP/1.1", b"CONNECTS / HTTP/1.1",
    b"connect / HTTP/1.1", b"GET /#x HTTP/1.1", b"GET /?#x HTTP/1.1", b"GET  / HTTP/1.1",
    b"GET /a b HTTP/1.1", b"GET / HTTP/1.0", b"GET / HTTP/2.0", b"GET / HTTP/1.9", b"GET / HTTP/1.10",
    b"GET / http/1.1", b"GET /\xff HTTP/1.1", b"GET /?\xff HTTP/1.1", b"GET /\x7f HTTP/1.1", b"GET /", b"",
    b"GET / HTTP/1.1 ", b"g\x01t / HTTP/1.1", b"G_T / HTTP/1.1", b"GET a HTTP/1.1", b"GET ? HTTP/1.1",
]  # fmt: skip
_RESPONSE_STARTS = [
    b"HTTP/1.1 200 OK", b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 Not Modified", b"HTTP/1.1 206 ",
    b"HTTP/1.1 500", b"HTTP/1.1 100 Continue", b"HTTP/1.1 101 Switching Protocols", b"HTTP/1.1 426 x",
    b"HTTP/1.0 200 OK", b"HTTP/1.1 600 x", b"HTTP/1.1 099 x", b"HTTP/1.1 2000", b"HTTP/1.1  200 OK",
    b"HTTP/2 200", b"HTTP/1.1 200 \x00", b"HTTP/1.1 200 a\xe9\tb ", b"HTTP/1.1 \xb200 x",
    b"http/1.1 200 OK", b"",
]  # fmt: skip
_BYTES = [
    b"\r\n", b"\r", b"\n", b"\t", b" ", b":", b": ", b",", b";", b"\x00", b"\x0b", b"\x1f", b"\x7f", b"\x80",
    b"\xff", b"_", b"-", b"#", b"*", b"/", b"?", b"0", b"1", b"+", b"A", b"z", b"\r\n\r\n", b"\r\n ",
]  # fmt: skip


class Mutants:
    """An endless source of heads that are good, nearly good, or not.

    Args:
        random: where all choices come from.
        of_responses: heads of responses, not of requests.
    """

    def __init__(self, random: Random, *, of_responses: bool = False) -> None:
        self._random = random
        self._good = GOOD_RESPONSES if of_responses else GOOD_REQUESTS
        self._starts = _RESPONSE_STARTS if of_responses else _REQUEST_STARTS
        self._changes: list[Callable[[bytes], bytes]] = [
            self._insert, self._delete, self._replace, self._flip_case, self._end_lines_otherwise,
            self._add_line, self._add_line, self._drop_line, self._repeat_line, self._swap_lines,
            self._other_start, self._splice, self._cut,
        ]  # fmt: skip

    def next(self) -> bytes:
        """A head with no change in a third of all cases, else with one or a few."""
        random = self._random
        raw = self._assembled() if random.randrange(3) == 0 else random.choice(self._good)
        for _ in range(random.choice((0, 1, 1, 1, 2, 4)) if raw else 1):
            raw = random.choice(self._changes)(raw)
        return raw

    def _assembled(self) -> bytes:
        """From any lines; a request mostly with the first start, which is good, and a Host."""
        random = self._random
        lines = [
            random.choice(self._starts) if random.randrange(4) == 0 else self._starts[random.randrange(2)]
        ]
        if self._good is GOOD_REQUESTS and random.randrange(4):
            lines.append(b"Host: a")
        lines += random.choices(_LINES, k=random.randrange(4))
        return b"\r\n".join([*lines, b"", b""])

    def _place(self, raw: bytes) -> int:
        return self._random.randrange(len(raw) + 1)

    def _insert(self, raw: bytes) -> bytes:
        place = self._place(raw)
        return raw[:place] + self._random.choice(_BYTES) + raw[place:]

    def _delete(self, raw: bytes) -> bytes:
        place = self._place(raw)
        return raw[:place] + raw[place + self._random.choice((1, 1, 2, 5)) :]

    def _replace(self, raw: bytes) -> bytes:
        place = self._place(raw)
        new = self._random.choice(_BYTES) if self._random.randrange(2) else self._random.randbytes(1)
        return raw[:place] + new + raw[place + 1 :]

    def _flip_case(self, raw: bytes) -> bytes:
        place = self._place(raw)
        return raw[:place] + raw[place : place + 1].swapcase() + raw[place + 1 :]

    def _end_lines_otherwise(self, raw: bytes) -> bytes:
        end = self._random.choice((b"\n", b"\r", b"\r\r\n", b" \r\n", b"\t\r\n", b"\r\n\r\n"))
        at = raw.find(b"\r\n", self._place(raw))
        return raw if at < 0 else raw[:at] + end + raw[at + 2 :]

    def _add_line(self, raw: bytes) -> bytes:
        start, *lines = raw.split(b"\r\n")
        lines.insert(self._random.randrange(max(1, len(lines) - 1)), self._random.choice(_LINES))
        return b"\r\n".join([start, *lines])

    def _drop_line(self, raw: bytes) -> bytes:
        lines = raw.split(b"\r\n")
        lines.pop(self._random.randrange(len(lines)))
        return b"\r\n".join(lines)

    def _repeat_line(self, raw: bytes) -> bytes:
        start, *lines = raw.split(b"\r\n")
        return b"\r\n".join([start, self._random.choice(lines or [b""]), *lines])

    def _swap_lines(self, raw: bytes) -> bytes:
        lines = raw.split(b"\r\n")
        place = self._random.randrange(len(lines))
        other = self._random.randrange(len(lines))
        lines[place], lines[other] = lines[other], lines[place]
        return b"\r\n".join(lines)

    def _other_start(self, raw: bytes) -> bytes:
        return self._random.choice(self._starts) + raw[max(0, raw.find(b"\r\n")) :]

    def _splice(self, raw: bytes) -> bytes:
        other = self._random.choice(self._good)
        return raw[: self._place(raw)] + other[self._random.randrange(len(other)) :]

    def _cut(self, raw: bytes) -> bytes:
        return raw[: self._place(raw)]
