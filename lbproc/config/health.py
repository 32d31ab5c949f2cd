"""The table ``[pools.NAME.health]``: how the backends of a pool are checked.

Owns its keys, their defaults and what each value may look like. What several of them may be together is in
``health_rules``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final, Literal

from pydantic import Field, PlainSerializer, PlainValidator, ValidationInfo
from pydantic_core import PydanticCustomError

from lbproc.config.match import Method
from lbproc.config.pem import AuthoritiesFile
from lbproc.config.place import parse_target, surroundings
from lbproc.config.secret import Secret, check_secret, fetch_secret, render_secret
from lbproc.config.table import Table, choice, strings, whole
from lbproc.config.values import DAY, Switch, parse_span
from lbproc.config.wording import quote, toml_type, wrong, wrong_type
from lbproc.types import Address, Seconds, TcpAddress, UnixAddress
from lbproc.units import render_duration

INTERVAL: Final = 2.0
TIMEOUT: Final = 1.0
LONGEST_TEXT: Final = 4096
"""Bytes of what is sent, and of what is looked for in an answer."""

_TARGET: Final = re.compile(r"/[!\"$-;=?-~]*")  # as in a request line: no controls, space, #, < or >
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")  # RFC 9110 5.6.2
_FIELD_VALUE: Final = re.compile(r"[!-~](?:[ \t!-~]{0,4094}[!-~])?")
_AUTHORITY: Final = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}")
_SERVER_NAME: Final = re.compile(r"[A-Za-z0-9_:-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")
_STATUS: Final = re.compile(r"([2-5][0-9]{2})(?:-([2-5][0-9]{2}))?")
_FRAMING: Final = frozenset(
    {"connection", "content-length", "transfer-encoding", "upgrade", "expect", "te", "trailer"}
)


@dataclass(frozen=True, slots=True)
class StatusRange:
    """Statuses of a good answer, from the first to the last."""

    first: int
    last: int

    def __contains__(self, status: int) -> bool:
        """Whether this is one of them."""
        return self.first <= status <= self.last

    def __str__(self) -> str:
        """As it is written: ``204``, ``200-299``."""
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


def parse_status_range(value: object) -> StatusRange:
    """One status, or a range of them."""
    if isinstance(value, int) and not isinstance(value, bool) and 200 <= value <= 599:
        raise wrong("is an integer, not a string", f'write it in quotes: "{value}"')
    if not isinstance(value, str):
        raise wrong_type(value, "a status or a range of them", '"200-299"')
    found = _STATUS.fullmatch(value)
    if found is None:
        raise wrong(
            f"{quote(value)} is not a status or a range of them",
            'write a status of 200 to 599, such as "204", or two with a hyphen, such as "200-299"',
        )
    first, last = int(found[1]), int(found[2] or found[1])
    if last < first:
        raise wrong(f"{quote(value)} is empty", f'write the lower one first: "{last}-{first}"')
    return StatusRange(first, last)


def parse_check_path(value: object) -> str:
    """What a check asks for: a path, and a query if it has one."""
    if not isinstance(value, str):
        raise wrong_type(value, "a path", '"/healthz"')
    if _TARGET.fullmatch(value) and len(value) <= LONGEST_TEXT:
        return value
    if not value.startswith("/") and _TARGET.fullmatch("/" + value):
        raise wrong(f"{quote(value)} does not begin with a slash", f"write {quote('/' + value)}")
    raise wrong(
        f"{quote(value)} is not the path of a request",
        'write one such as "/healthz"; percent-encode what is not visible ASCII',
    )


def parse_check_host(value: object) -> str:
    """What a check says in its Host field."""
    if not isinstance(value, str):
        raise wrong_type(value, "a host", '"app.internal"')
    if not _AUTHORITY.fullmatch(value):
        raise wrong(
            f"{quote(value)} is not a host", 'write one such as "app.internal" or "app.internal:8080"'
        )
    return value


def parse_server_name(value: object) -> str:
    """The name that a certificate must be for."""
    if not isinstance(value, str):
        raise wrong_type(value, "a host name", '"app.internal"')
    if not _SERVER_NAME.fullmatch(value) or len(value) > 253:
        raise wrong(f"{quote(value)} is not a host name", 'write one such as "app.internal", without a port')
    return value


def parse_headers(value: object, info: ValidationInfo) -> dict[str, str | Secret]:
    """Header fields of the request of a check. Values that are named and not written here are secrets."""
    right = 'write names and strings such as { X-Probe = "1" }'
    if not isinstance(value, dict):
        raise wrong(f"is {toml_type(value)}, not a table of header fields", right)
    for name in value:
        if not _TOKEN.fullmatch(name):
            raise wrong(f"{quote(name)} is not the name of a header field", right)
        if name.lower() == "host":
            raise wrong(f"{quote(name)} has a key of its own", 'write host = "app.internal" instead')
        if name.lower() in _FRAMING:
            raise wrong(f"{quote(name)} is set by lbproc itself", "leave it out")
    if len(value) > 50:
        raise wrong(f"holds {len(value)} header fields", "write at most 50")
    return {name: _header_value(name, given, info) for name, given in value.items()}


def _header_value(name: str, given: object, info: ValidationInfo) -> str | Secret:
    """One value. No message shows it, because it may be a secret that somebody wrote in the wrong place."""
    if not isinstance(given, str | dict):
        raise wrong(
            f"the value of {quote(name)} is {toml_type(given)}, not a string",
            'write a string such as "1", { env = "NAME" } or { file = "PATH" }',
        )
    value: str | Secret = given if isinstance(given, str) else _named_value(name, given, info)
    if not _FIELD_VALUE.fullmatch(value if isinstance(value, str) else value.reveal()):
        raise wrong(
            f"the value of {quote(name)} cannot be sent",
            "write 1 to 4096 visible ASCII characters, with spaces only between them",
        )
    return value


def _named_value(name: str, table: dict[str, object], info: ValidationInfo) -> Secret:
    try:
        secret = fetch_secret(table, surroundings(info))
        check_secret(secret)
    except PydanticCustomError as error:
        said = error.context or {}
        raise wrong(f"the value of {quote(name)}: {said['what']}", said["right"]) from None
    return secret


def render_headers(headers: dict[str, str | Secret]) -> dict[str, str | dict[str, str]]:
    """Header fields as they are written for people: of secrets where they come from."""
    return {
        name: value if isinstance(value, str) else render_secret(value) for name, value in headers.items()
    }


def parse_text(value: object, *, noun: str, example: str) -> str:
    """A text that is sent, or looked for in an answer."""
    if not isinstance(value, str):
        raise wrong_type(value, noun, example)
    if not 0 < len(value.encode("utf-8", "surrogatepass")) <= LONGEST_TEXT:
        what = "is empty" if not value else "is too long"
        raise wrong(f"the text {what}", f"write {noun} of 1 to {LONGEST_TEXT} bytes, such as {example}")
    return value


def parse_check_address(value: object, info: ValidationInfo) -> Address:
    """Where all backends of a pool are checked: an IP address with a port, or a Unix socket."""
    address = parse_target(value, info)
    if isinstance(address, TcpAddress) and ":" not in address.host and not _is_ipv4(address.host):
        raise wrong(
            f"{quote(str(value))} names a host, and only a backend's own name is looked up",
            'write an IP address and a port such as "10.0.0.9:9000", or unix:PATH',
        )
    return address


def _is_ipv4(host: str) -> bool:
    return re.fullmatch(r"[0-9.]+", host) is not None


Interval = Annotated[
    Seconds,
    PlainValidator(partial(parse_span, least=0.1, most=DAY, example="2s")),
    PlainSerializer(render_duration),
]
DoubtInterval = Annotated[
    Seconds,
    PlainValidator(partial(parse_span, least=0.05, most=DAY, example="1s")),
    PlainSerializer(render_duration),
]
DownInterval = Annotated[
    Seconds,
    PlainValidator(partial(parse_span, least=0.05, most=2 * DAY, example="4s")),
    PlainSerializer(render_duration),
]
CheckTimeout = Annotated[
    Seconds,
    PlainValidator(partial(parse_span, least=0.01, most=3600.0, example="1s")),
    PlainSerializer(render_duration),
]
Statuses = tuple[Annotated[StatusRange, PlainValidator(parse_status_range), PlainSerializer(str)], ...]
CheckPath = Annotated[str, PlainValidator(parse_check_path)]


def _default_timeout(fields: dict[str, Any]) -> Seconds:
    return min(TIMEOUT, float(fields.get("interval", INTERVAL)))


def _half_interval(fields: dict[str, Any]) -> Seconds:
    return round(
        float(fields.get("interval", INTERVAL)) / 2, 3
    )  # a millisecond is the finest that is written


def _twice_interval(fields: dict[str, Any]) -> Seconds:
    return float(fields.get("interval", INTERVAL)) * 2


class ExpectConfig(Table):
    """What a good answer looks like."""

    status: Annotated[Statuses, strings("200-299")] = Field(
        default=(StatusRange(200, 299),), description='statuses of a good answer, "200-299" or "204"'
    )
    body: (
        Annotated[str, PlainValidator(partial(parse_text, noun="a text of the answer", example='"ok"'))]
        | None
    ) = Field(default=None, description="text that stands in the first 16 KiB of a good answer")


class CheckTlsConfig(Table):
    """How checks speak TLS."""

    verify: Switch = Field(default=True, description="whether the certificate must be right")
    server_name: Annotated[str, PlainValidator(parse_server_name)] | None = Field(
        default=None, description="name that is asked for and that the certificate is for"
    )
    ca: AuthoritiesFile | None = Field(
        default=None, description="file of the authorities to trust; default: those of the system"
    )


class HealthConfig(Table):
    """Active checks: how it is found out which backends may take traffic."""

    check: Annotated[
        Literal["http", "tcp", "tls", "udp"], choice("a kind of check", "http", "tcp", "tls", "udp")
    ] = Field(
        default="http", description="http: a request; tcp: a connection; tls: a handshake; udp: a datagram"
    )
    path: CheckPath = Field(
        default="/", description="what is asked for; takes traffic while this is answered well"
    )
    method: Method = Field(default="GET", description="method of the request")
    headers: Annotated[
        dict[str, str | Secret], PlainValidator(parse_headers), PlainSerializer(render_headers)
    ] = Field(default_factory=dict, description="further header fields of the request; values may be secrets")
    host: Annotated[str, PlainValidator(parse_check_host)] | None = Field(
        default=None, description="Host of the request; default: the backend's address"
    )
    liveness_path: CheckPath | None = Field(
        default=None, description="asked for too: whether the process lives, shown apart and without effect"
    )
    interval: Interval = Field(default=INTERVAL, description="from the beginning of one check to the next")
    timeout: CheckTimeout = Field(
        default_factory=_default_timeout, description="how long one check may take; at most interval"
    )
    rise: Annotated[int, whole(1, 100, 2)] = Field(
        default=2, description="good checks in a row after which a backend that is down is up"
    )
    fall: Annotated[int, whole(1, 100, 3)] = Field(
        default=3, description="failed checks in a row after which a backend that is up is down"
    )
    doubt_interval: DoubtInterval = Field(
        default_factory=_half_interval,
        description="instead of interval while the next check may change the state",
    )
    down_interval: DownInterval = Field(
        default_factory=_twice_interval, description="instead of interval while a backend is down"
    )
    port: Annotated[int, whole(1, 65535, 9000)] | None = Field(
        default=None, description="port that is checked instead of the backend's own"
    )
    address: (
        Annotated[TcpAddress | UnixAddress, PlainValidator(parse_check_address), PlainSerializer(str)] | None
    ) = Field(default=None, description="address that is checked instead of the backend's own")
    tls: CheckTlsConfig | None = Field(
        default=None,
        description="how http and tls speak TLS; default: as the pool does; else tls verifies by the system",
    )
    send: (
        Annotated[str, PlainValidator(partial(parse_text, noun="a text to send", example='"PING\\r\\n"'))]
        | None
    ) = Field(default=None, description="tcp and tls: text that is sent first; udp: the datagram")
    expect: ExpectConfig = Field(default_factory=ExpectConfig, description="what a good answer looks like")
    initial: Annotated[
        Literal["checking", "up", "down"], choice("a first state", "checking", "up", "down")
    ] = Field(
        default="checking",
        description="of a new backend; checking: no traffic before the first good check",
    )
