"""What a route's ``match`` may ask: hosts, paths, path prefixes, methods; of a TLS handshake SNI and ALPN.

Owns the notation of the conditions. How something is matched belongs to routing.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import Annotated, Final

from pydantic import PlainValidator

from lbproc.config.wording import quote, wrong, wrong_type

_HOST: Final = re.compile(r"(?:\*\.)?[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
_METHOD: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")  # a token, RFC 9110 section 9.1
_ALPN: Final = re.compile(r"[!-~]{1,255}")  # any bytes, RFC 7301; registered ones are visible ASCII
_PATH: Final = re.compile(r"/[!\"$-;=@-~]*")  # no controls, space, ?, #, <, > and nothing beyond ASCII


def parse_host(value: object) -> str:
    """A host, or ``*.`` before one for every name below it; in lower case and without a port."""
    example = '"api.example.com" or "*.example.com"'
    if not isinstance(value, str):
        raise wrong_type(value, "a host", example)
    host = value.lower()
    if host.startswith("["):
        if _is_bracketed_ipv6(host):
            return host
        raise wrong(
            f"{quote(value)} is not a host", 'write an IPv6 address in brackets without a port, "[::1]"'
        )
    if "://" in host or "/" in host:
        raise wrong(f"{quote(value)} is not a host", f"leave out scheme and path, such as {example}")
    name, colon, _ = host.partition(":")
    if colon and _HOST.fullmatch(name):
        raise wrong(f"{quote(value)} has a port", f'hosts match on any port; write "{name}"')
    if len(host) > 253 or not _HOST.fullmatch(host):
        star = "a star stands only in front, for all names below; " if "*" in host else ""
        raise wrong(f"{quote(value)} is not a host", f"{star}write one such as {example}")
    return host


def parse_path_condition(value: object) -> str:
    """A path, or the beginning of one: as it stands in a request, without the query."""
    if not isinstance(value, str):
        raise wrong_type(value, "a path", '"/v1"')
    if _PATH.fullmatch(value):
        return value
    if not value.startswith("/"):
        guess = "/" + value if _PATH.fullmatch("/" + value) else "/v1"
        raise wrong(f"{quote(value)} does not begin with a slash", f"write a path such as {quote(guess)}")
    if "?" in value or "#" in value:
        guess = value.partition("?")[0].partition("#")[0]
        raise wrong(f"{quote(value)} holds more than a path", f"leave out what follows it: {quote(guess)}")
    raise wrong(
        f"{quote(value)} holds characters that no request path has",
        "percent-encode them as a browser does, and write %20 for a space",
    )


def parse_method(value: object) -> str:
    """A method in upper case, as methods are written and compared."""
    if not isinstance(value, str):
        raise wrong_type(value, "a method", '"GET"')
    if not _METHOD.fullmatch(value):
        raise wrong(f"{quote(value)} is not a method", 'write one such as "GET"')
    if value != value.upper():
        raise wrong(
            f"{quote(value)} matches no request", f'methods are in upper case; write "{value.upper()}"'
        )
    if value == "CONNECT":
        raise wrong(
            '"CONNECT" is never routed: lbproc answers it with 501', 'write another method such as "GET"'
        )
    return value


def parse_sni(value: object) -> str:
    """A host that a client names in its handshake, or ``*.`` before one for every name below it."""
    host = parse_host(value)
    if host.startswith("[") or re.fullmatch(r"[0-9.]+", host):
        raise wrong(
            f"{quote(host)} is an address, and clients name none in a handshake",
            'write a name such as "db.example.com", or leave it to the pool of the listener',
        )
    return host


def parse_alpn(value: object) -> str:
    """A protocol that a client offers in its handshake."""
    if not isinstance(value, str):
        raise wrong_type(value, "the name of a protocol", '"h2"')
    if not _ALPN.fullmatch(value):
        raise wrong(
            f"{quote(value)} is not the name of a protocol",
            'write one such as "h2", "http/1.1" or "postgresql"',
        )
    return value


def _is_bracketed_ipv6(host: str) -> bool:
    """Whether a host is an IPv6 address in brackets, as it stands in a Host field."""
    try:
        IPv6Address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return host.endswith("]") and "%" not in host


HostPattern = Annotated[str, PlainValidator(parse_host)]
PathCondition = Annotated[str, PlainValidator(parse_path_condition)]
Method = Annotated[str, PlainValidator(parse_method)]
ServerName = Annotated[str, PlainValidator(parse_sni)]
Alpn = Annotated[str, PlainValidator(parse_alpn)]
