"""The rows of the bench: what is asked for, over how many connections, and how it should compare.

The requests of a row are made once, as bytes, and then sent over and over in the same order by whichever
client measures: wrk at full load, our paced client at half load. So the client spends nothing on making them,
and every proxy is sent the same bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Way = Literal["http", "https", "tcp"]
"""Which port of a proxy takes the work: HTTP in clear, inside of TLS, or bytes that it does not read."""

HOST = "www.example.com"
LARGE_BYTES = 10_000_000

DISTINCT_REQUESTS = 200_000
"""So many that no cache of heads holds a share of them worth mentioning."""

BROWSER_REQUESTS = 20_000
VISITORS = 400
PAGES = 120
BODIES = 1000


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of work.

    Args:
        name: on the command line.
        title: in the report.
        about: what exactly is sent, for the report.
        make: renders the requests of the row.
        connections: how many at once.
        idle: connections that have made one request and stay open beside them.
        close: every request on a connection of its own.
        body_bytes: size of the answer where that is what costs; then unfinished answers count by their bytes.
        targets: highest ratio to each peer that we want.
        way: to which port it goes. What does not go to the first one is measured at full load only.
    """

    name: str
    title: str
    about: str
    make: Callable[[], list[bytes]]
    connections: int = 32
    idle: int = 0
    close: bool = False
    body_bytes: int | None = None
    targets: Mapping[str, float] = field(default_factory=dict)
    way: Way = "http"


def same_heads() -> list[bytes]:
    """One request: whatever can be remembered of it is."""
    return [_render("GET / HTTP/1.1", [f"Host: {HOST}"])]


def distinct_heads() -> list[bytes]:
    """No two alike: another target and another field value in each."""
    return [
        _render(f"GET /?n={number} HTTP/1.1", [f"Host: {HOST}", f"X-Number: {number}"])
        for number in range(1_000_000, 1_000_000 + DISTINCT_REQUESTS)
    ]


def closing_heads() -> list[bytes]:
    """One request that asks to close."""
    return [_render("GET / HTTP/1.1", [f"Host: {HOST}", "Connection: close"])]


def large_heads() -> list[bytes]:
    """One request for the large file."""
    return [_render("GET /large HTTP/1.1", [f"Host: {HOST}"])]


def json_posts() -> list[bytes]:
    """Calls of an API: one head, bodies of one length (about 400 bytes) with other content in each."""
    head = [
        f"Host: {HOST}",
        "User-Agent: python-httpx/0.28.1",
        "Accept: application/json",
        "Accept-Encoding: gzip, deflate, br",
        "Connection: keep-alive",
        "Authorization: Bearer 5f1d7a90c2e84b63a7d2f0e19b8c4d35",
        "Content-Type: application/json",
    ]
    random = Random(3)
    return [_post(head, number, random) for number in range(BODIES)]


def _post(head: list[str], number: int, random: Random) -> bytes:
    order = {
        "order": f"{number:08d}",
        "customer": f"{random.getrandbits(64):016x}",
        "currency": "EUR",
        "lines": [
            {
                "item": f"sku-{random.randrange(10_000):04d}",
                "count": random.randrange(1, 9),
                "price": "019.90",
            }
            for _ in range(3)
        ],
        "note": "Please leave the parcel with the neighbours on the second floor.",
        "ship_to": {"street": "Example Street 12", "city": "Springfield", "code": "01234"},
    }
    body = json.dumps(order).encode()
    return _render("POST /orders HTTP/1.1", [*head, f"Content-Length: {len(body)}"]) + body


@dataclass(frozen=True, slots=True)
class _Browser:
    """The lines of one browser, before and after those that depend on what is asked for."""

    before: tuple[str, ...]
    accepts: Mapping[str, str]
    encodings: str


_PAGE, _STYLE, _SCRIPT, _IMAGE, _DATA = "document", "style", "script", "image", "empty"

_CHROME_ACCEPTS = {
    _PAGE: "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8",
    _STYLE: "text/css,*/*;q=0.1",
    _SCRIPT: "*/*",
    _IMAGE: "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8",
    _DATA: "application/json, text/plain, */*",
}
_OTHER_ACCEPTS = {
    **_CHROME_ACCEPTS,
    _PAGE: "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    _IMAGE: "image/webp,image/avif,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5",
}


def _chrome(version: int, platform: str, system: str) -> _Browser:
    brands = f'"Chromium";v="{version}", "Google Chrome";v="{version}", "Not_A Brand";v="99"'
    agent = (
        f"Mozilla/5.0 ({system}) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{version}.0.0.0 Safari/537.36"
    )
    before = (
        f"sec-ch-ua: {brands}",
        "sec-ch-ua-mobile: ?0",
        f'sec-ch-ua-platform: "{platform}"',
        f"User-Agent: {agent}",
    )
    return _Browser(before, _CHROME_ACCEPTS, "gzip, deflate, br, zstd")


def _other(agent: str, encodings: str) -> _Browser:
    return _Browser((f"User-Agent: {agent}",), _OTHER_ACCEPTS, encodings)


BROWSERS = (
    _chrome(142, "Windows", "Windows NT 10.0; Win64; x64"),
    _chrome(142, "macOS", "Macintosh; Intel Mac OS X 10_15_7"),
    _chrome(141, "Linux", "X11; Linux x86_64"),
    _other(
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:144.0) Gecko/20100101 Firefox/144.0",
        "gzip, deflate, br, zstd",
    ),
    _other(
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
        "Version/26.0 Mobile/15E148 Safari/604.1",
        "gzip, deflate, br",
    ),
)
_LANGUAGES = ("en-US,en;q=0.9", "en-GB,en;q=0.8", "de-DE,de;q=0.9,en;q=0.7", "fr-FR,fr;q=0.8,en;q=0.5")


@dataclass(frozen=True, slots=True)
class _Visitor:
    browser: _Browser
    language: str
    cookie: str


def browser_heads() -> list[bytes]:
    """What a web site sees.

    400 visitors with one of five browsers, one of four languages and cookies of their own look at pages,
    popular ones more often, and each page brings its style sheet, script, images and a call for data, with
    the page as referrer. The requests of 32 visits at a time are mixed. Of 20 000 heads one in eight has been
    seen before as a whole, and of their lines 99 in 100.
    """
    random = Random(12)
    visitors = [_visitor(random) for _ in range(VISITORS)]
    popularity = [1 / (rank + 1) for rank in range(PAGES)]

    def visit() -> Iterator[bytes]:
        visitor = random.choice(visitors)
        (page,) = random.choices(range(PAGES), popularity)
        return _visit(visitor, page, random)

    under_way = [visit() for _ in range(32)]
    found: list[bytes] = []
    while len(found) < BROWSER_REQUESTS:
        which = random.randrange(len(under_way))
        request = next(under_way[which], None)
        if request is None:
            under_way[which] = visit()
        else:
            found.append(request)
    return found


def _visitor(random: Random) -> _Visitor:
    session = f"{random.getrandbits(128):032x}"
    first = 1_750_000_000 + random.randrange(10_000_000)
    client = random.randrange(10**9, 2 * 10**9)
    cookie = (
        f"session={session}; csrf={random.getrandbits(96):024x}; consent=necessary.statistics.{first}; "
        f"_ga=GA1.1.{client}.{first}; _ga_7XK2P9QLM4=GS2.1.s{first + 40}$o3$g1$t{first + 97}$j60$l0$h0; "
        f"theme={random.choice(('dark', 'light'))}; cart={random.getrandbits(40):010x}"
    )
    return _Visitor(random.choice(BROWSERS), random.choice(_LANGUAGES), cookie)


def _visit(visitor: _Visitor, page: int, random: Random) -> Iterator[bytes]:
    path = f"/catalogue/section-{page % 12}/article-{page}"
    yield _browse(visitor, path, _PAGE, f"https://{HOST}/catalogue/section-{page % 12}")
    referrer = f"https://{HOST}{path}"
    yield _browse(visitor, "/assets/site.4f9c1e7a.css", _STYLE, referrer)
    yield _browse(visitor, "/assets/site.b03d52c8.js", _SCRIPT, referrer)
    for number in range(4):
        yield _browse(visitor, f"/images/{page}/{number}-640x480.webp", _IMAGE, referrer)
    yield _browse(visitor, f"/api/stock?article={page}&t={random.randrange(10**6)}", _DATA, referrer)


def _browse(visitor: _Visitor, target: str, kind: str, referrer: str) -> bytes:
    mode = {_PAGE: "navigate", _DATA: "cors"}.get(kind, "no-cors")
    return _render(
        f"GET {target} HTTP/1.1",
        [
            f"Host: {HOST}",
            "Connection: keep-alive",
            *visitor.browser.before,
            f"Accept: {visitor.browser.accepts[kind]}",
            "Sec-Fetch-Site: same-origin",
            f"Sec-Fetch-Mode: {mode}",
            f"Sec-Fetch-Dest: {kind}",
            f"Referer: {referrer}",
            f"Accept-Encoding: {visitor.browser.encodings}",
            f"Accept-Language: {visitor.language}",
            f"Cookie: {visitor.cookie}",
        ],
    )


def _render(line: str, fields: list[str]) -> bytes:
    return ("\r\n".join([line, *fields]) + "\r\n\r\n").encode()


ROWS = (
    Row(
        "keepalive",
        "small GET, keep-alive, identical heads",
        "One request of two lines, 128 bytes of answer, 32 connections.",
        same_heads,
        targets={"haproxy": 1.8, "caddy": 0.4},
    ),
    Row(
        "distinct",
        "small GET, keep-alive, every head different",
        "The same with a third line; target and field value differ in 200 000 requests.",
        distinct_heads,
        targets={"haproxy": 2.5},
    ),
    Row(
        "browser",
        "small GET, keep-alive, heads of browsers",
        "Heads of 11 to 15 lines, 810 bytes on average, with cookies: 400 visitors on 120 pages and what "
        "those bring. Of 20 000 heads one in eight is a repetition, of their lines 99 in 100.",
        browser_heads,
    ),
    Row(
        "post",
        "POST of JSON, keep-alive",
        "400 bytes of JSON, 1000 bodies under one head of nine lines; 128 bytes of answer, 32 connections.",
        json_posts,
    ),
    Row(
        "connect",
        "small GET, a new connection each",
        "128 bytes of answer, 32 connections at a time, closed by the proxy.",
        closing_heads,
        close=True,
    ),
    Row(
        "idle",
        "small GET, 1 000 idle + 32 busy connections",
        "As keepalive, while 1 000 more connections that have made one request stay open.",
        same_heads,
        idle=1000,
    ),
    Row(
        "large",
        "10 MB response, keep-alive",
        "10 000 000 bytes of answer, 8 connections.",
        large_heads,
        connections=8,
        body_bytes=LARGE_BYTES,
        targets={"haproxy": 1.0},
    ),
    Row(
        "tls",
        "small GET, keep-alive, HTTPS",
        "As keepalive inside of TLS 1.3, ECDSA P-256.",
        same_heads,
        targets={"haproxy": 2.0},
        way="https",
    ),
    Row(
        "handshake",
        "small GET, HTTPS, a full handshake each",
        "As connect inside of TLS 1.3, ECDSA P-256; our own client, which resumes no session as wrk does.",
        closing_heads,
        close=True,
        targets={"haproxy": 1.2},
        way="https",
    ),
    Row(
        "tcp",
        "10 MB through TCP",
        "As large, through a listener that reads nothing of it.",
        large_heads,
        connections=8,
        body_bytes=LARGE_BYTES,
        targets={"haproxy": 0.6},
        way="tcp",
    ),
    Row(
        "echo",
        "small pieces through TCP",
        "As keepalive, through a listener that reads nothing of it: 45 bytes there, about 290 back.",
        same_heads,
        way="tcp",
    ),
)
"""In the order of the report."""
