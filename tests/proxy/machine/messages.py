"""What clients ask and backends answer in the machine, as drawn; ``requests``, ``answers`` write it out."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING

from tests.proxy.machine.setting import MAX_HEAD

if TYPE_CHECKING:
    from hypothesis.vendor.pretty import RepresentationPrinter

Fields = tuple[tuple[bytes, bytes], ...]

IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})

HOP_BY_HOP = frozenset({
    b"connection", b"keep-alive", b"te", b"upgrade", b"transfer-encoding", b"content-length",
})  # fmt: skip
FORWARDED = frozenset({
    b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-request-id", b"traceparent",
})  # fmt: skip

PLAIN: Fields = ()
CURL: Fields = ((b"User-Agent", b"curl/8.5"), (b"Accept", b"*/*"))
BROWSER: Fields = (
    (b"User-Agent", b"Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101"),
    (b"Accept", b"text/html,application/xhtml+xml;q=0.9"),
    (b"Accept-Encoding", b"gzip, br"),
    (b"Cookie", b"a=1; b=2"),
)
ROBOT: Fields = (
    (b"accept", b"application/json"),
    (b"X-Forwarded-For", b"6.6.6.6"),
    (b"X-Request-Id", b"forged"),
)
HOPPY: Fields = (
    (b"TE", b"trailers"),
    (b"X-Hop", b"1"),
    (b"Keep-Alive", b"timeout=9"),
    (b"X-Kept", b"1"),
    (b"X-Kept", b"2"),
)
HEADERS = (PLAIN, CURL, BROWSER, ROBOT, HOPPY)

MALFORMED = {
    "space": (b"X-Bad : 1\r\n", {400}),
    "bare-lf": (b"X-Bad: 1\nX-Worse: 2\r\n", {400}),
    "both": (b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", {400}),
    "two-lengths": (b"Content-Length: 1\r\nContent-Length: 1\r\n", {400}),
    "two-hosts": (b"Host: b\r\n", {400}),
    "expect": (b"Expect: nothing\r\n", {417}),
    "coding": (b"Transfer-Encoding: gzip\r\n", {400, 501}),
    "large": (b"X-Large: " + b"a" * MAX_HEAD + b"\r\n", {431}),
}
"""What spoils a request's head: the lines that are added, and what they are answered with."""


class Brief:
    """A dataclass that shows only what is not as usual: failures are read by people."""

    __slots__ = ()

    def __repr__(self) -> str:
        said = []
        for item in fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            usual = item.default if item.default_factory is MISSING else item.default_factory()
            if value != usual:
                said.append(f"{item.name}={value!r}")
        return f"{type(self).__name__}({', '.join(said)})"

    def _repr_pretty_(self, printer: RepresentationPrinter, _cycle: bool) -> None:
        printer.text(repr(self))


@dataclass(frozen=True, slots=True, repr=False)
class Request(Brief):
    """What a client sends.

    Attributes:
        unique: the target has not been seen before; otherwise the head is like others.
        connection: tokens of ``Connection`` beyond those that the other attributes need.
        framing: of the body: ``none``, ``length``, ``chunked``.
        size: of the body's payload.
        spoil: a key of ``MALFORMED``; ``too-long`` is a length above the limit, ``bad-chunk`` a body that
            breaks off into nonsense, ``over-limit`` more chunks than allowed.
    """

    method: bytes = b"GET"
    unique: bool = False
    unrouted: bool = False
    http10: bool = False
    headers: Fields = PLAIN
    connection: tuple[bytes, ...] = ()
    framing: str = "none"
    size: int = 0
    expects: bool = False
    upgrades: bool = False
    spoil: str = ""
    empty_line: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class Answer(Brief):
    """What a backend answers.

    Attributes:
        early: when the request's head is there, not when all of it is.
        framing: ``length``, ``chunked``, ``close``.
        spoil: ``truncated`` (by ``cut`` bytes), ``excess``, ``malformed``, ``both``, ``bad-chunk``,
            ``empty`` (not a byte of it is sent).
        end: what becomes of the connection after it: ``keep``, ``close``, ``half``, ``reset``.
        tunnel: bytes that follow a 101.
    """

    early: bool = False
    interims: tuple[int, ...] = ()
    status: int = 200
    framing: str = "length"
    size: int = 2
    http10: bool = False
    headers: Fields = PLAIN
    connection: tuple[bytes, ...] = ()
    spoil: str = ""
    cut: int = 1
    end: str = "keep"
    tunnel: int = 0


@dataclass(frozen=True, slots=True, repr=False)
class Exchange(Brief):
    """A request, and what backends answer to its first and its later attempts."""

    request: Request = field(default_factory=Request)
    answers: tuple[Answer, ...] = (Answer(),)
