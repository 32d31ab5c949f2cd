"""Numbers, durations, sizes and words of a configuration, as the types that the model's fields are made of.

Each takes exactly what TOML can hold, gives a finished value, and raises an error that says what is wrong
and what would be right. Knows nothing of where a key stands; what concerns several keys at once is in
``crosscheck``.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated, Final, Literal

from pydantic import PlainSerializer, PlainValidator

from lbproc.config.wording import listed, nearest, quote, toml_type, wrong, wrong_type
from lbproc.types import Seconds
from lbproc.units import UnitError, parse_duration, parse_size, render_duration, render_size

DAY: Final = 86_400.0
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")  # RFC 9110 5.6.2
_WHOLE_HASH_KEYS: Final = ("client_ip", "path", "sni", "tls_session_id")
_USER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")


def parse_whole(value: object, *, least: int, most: int, example: int) -> int:
    """A whole number within bounds. TOML's booleans are not numbers."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong_type(value, f"a whole number of {least} to {most}", str(example))
    if not least <= value <= most:
        side = f"less than {least}" if value < least else f"more than {most}"
        raise wrong(f"is {value}, which is {side}", f"write a whole number of {least} to {most}")
    return value


def parse_switch(value: object) -> bool:
    """True or false, written without quotes."""
    if not isinstance(value, bool):
        raise wrong(f"is {toml_type(value)}, not a boolean", "write true or false, without quotes")
    return value


def parse_span(value: object, *, least: Seconds, most: Seconds, example: str) -> Seconds:
    """A duration within bounds, in seconds."""
    if not isinstance(value, str):
        if isinstance(value, int | float) and not isinstance(value, bool):
            meant = f'"{value}s" or "{example}"' if 0 < value < 1_000_000 else f'"{example}"'
            raise wrong(
                f"is {toml_type(value)}, not a duration", f"write the unit too, as a string such as {meant}"
            )
        raise wrong_type(value, "a duration", f'"{example}"')
    try:
        seconds = parse_duration(value)
    except UnitError as error:
        raise wrong(f"{quote(value)} {error.what}", error.right) from None
    if not least <= seconds <= most:
        bounds = f'a duration of "{render_duration(least)}" to "{render_duration(most)}"'
        side = "too short" if seconds < least else "too long"
        raise wrong(f"{quote(value)} is {side}", f'write {bounds}, such as "{example}"')
    return seconds


def parse_bytes(value: object, *, least: int, most: int, example: str) -> int:
    """A size within bounds, in bytes. A plain integer counts bytes."""
    if isinstance(value, str):
        try:
            size = parse_size(value)
        except UnitError as error:
            raise wrong(f"{quote(value)} {error.what}", error.right) from None
    elif isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        raise wrong_type(value, "a size", f'"{example}"')
    if not least <= size <= most:
        side = "too small" if size < least else "too large"
        bounds = f'"{render_size(least)}" to "{render_size(most)}"'
        raise wrong(
            f"{quote(value) if isinstance(value, str) else size} is {side}",
            f'write a size of {bounds}, such as "{example}"',
        )
    return size


def parse_choice(value: object, *, noun: str, choices: tuple[str, ...]) -> str:
    """One of a few words."""
    if not isinstance(value, str):
        raise wrong_type(value, noun, quote(choices[0]))
    if value in choices:
        return value
    guess = nearest(value, choices)
    right = f"did you mean {quote(guess)}?" if guess and len(choices) > 1 else ""
    known = listed(map(quote, choices))
    right = f"{right} {known} can stand here" if right else f"write {known}"
    raise wrong(f"{quote(value)} is not {noun}", right)


def parse_name(value: object) -> str:
    """The name of a route, which reads well in logs and on a command line."""
    if not isinstance(value, str):
        raise wrong_type(value, "a name", '"api"')
    if not is_name(value):
        raise wrong(f"{quote(value)} is not a name", NAME_REMEDY)
    return value


NAME_REMEDY: Final = 'write 1 to 64 letters, digits, "_", "-" or ".", beginning with a letter or digit'


def is_name(text: str) -> bool:
    """Whether a listener, a pool or a route may be called so."""
    return _NAME.fullmatch(text) is not None


def parse_pool_reference(value: object) -> str:
    """The name of a pool, used in another table. Whether there is such a pool is seen in ``crosscheck``."""
    if not isinstance(value, str):
        raise wrong_type(value, "the name of a pool", '"web"')
    return value


def parse_backend_name(value: object) -> str:
    """The name of a backend: what can stand in a log line and after the slash of POOL/BACKEND."""
    if not isinstance(value, str):
        raise wrong_type(value, "a name", '"b1"')
    if not (0 < len(value) <= 255 and value.isprintable() and " " not in value):
        raise wrong(
            f"{quote(value)} is not a backend name", "write 1 to 255 visible characters without spaces"
        )
    return value


def parse_user(value: object) -> str:
    """The name of a system account. Whether it exists is seen when lbproc starts."""
    if not isinstance(value, str):
        raise wrong_type(value, "the name of a system user", '"lbproc"')
    if not _USER.fullmatch(value):
        raise wrong(f"{quote(value)} is not the name of a system user", 'write one such as "lbproc"')
    return value


def parse_workers(value: object) -> int | Literal["auto"]:
    """A number of workers, or ``auto``: one for each CPU that this process may use."""
    if value == "auto":
        return "auto"
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 200:
        shown = quote(value) if isinstance(value, str) else toml_type(value)
        shown = str(value) if isinstance(value, int) and not isinstance(value, bool) else shown
        raise wrong(
            f"is {shown}, not a number of workers", 'write "auto" or a whole number of 1 to 200, such as 4'
        )
    return value


def parse_hash_key(value: object) -> str:
    """What a hashing policy looks at: the client's address, or something of its request or handshake."""
    if not isinstance(value, str):
        raise wrong_type(value, "what to hash", '"client_ip" or "header:X-User"')
    kind, colon, name = value.partition(":")
    right = 'write "client_ip", "path", "header:NAME", "cookie:NAME", "query:NAME", "sni" or "tls_session_id"'
    if kind in _WHOLE_HASH_KEYS and not colon:
        return value
    if kind not in {"header", "cookie", "query"}:
        guess = nearest(kind, (*_WHOLE_HASH_KEYS, "header", "cookie", "query"))
        raise wrong(
            f"{quote(value)} is nothing that can be hashed",
            f"did you mean {guess}? {right}" if guess else right,
        )
    if not _TOKEN.fullmatch(name):
        raise wrong(
            f"{quote(value)} names no {kind}", f'write its name after the colon, such as "{kind}:user"'
        )
    return value


def parse_redirect(value: object) -> int | None:
    """The port that requests are redirected to; true: that of https; false: none."""
    if isinstance(value, bool):
        return 443 if value else None
    if not isinstance(value, int):
        raise wrong(f"is {toml_type(value)}, not a boolean or a port", "write true, or a port such as 8443")
    return parse_whole(value, least=1, most=65_535, example=8443)


Timeout = Annotated[
    Seconds,
    PlainValidator(partial(parse_span, least=0.001, most=365 * DAY, example="30s")),
    PlainSerializer(render_duration),
]
DrainTimeout = Annotated[
    Seconds,
    PlainValidator(partial(parse_span, least=0.0, most=365 * DAY, example="10m")),
    PlainSerializer(render_duration),
]
HeartbeatTimeout = Annotated[
    Seconds,
    PlainValidator(partial(parse_span, least=1.0, most=DAY, example="30s")),
    PlainSerializer(render_duration),
]
HeaderSize = Annotated[
    int,
    PlainValidator(partial(parse_bytes, least=1024, most=16 * 1024**2, example="32KiB")),
    PlainSerializer(render_size),
]
BodySize = Annotated[
    int,
    PlainValidator(partial(parse_bytes, least=0, most=2**60, example="1GiB")),
    PlainSerializer(render_size),
]
Switch = Annotated[bool, PlainValidator(parse_switch)]
Workers = Annotated[int | Literal["auto"], PlainValidator(parse_workers)]
RouteName = Annotated[str, PlainValidator(parse_name)]
BackendName = Annotated[str, PlainValidator(parse_backend_name)]
UserName = Annotated[str, PlainValidator(parse_user)]
RedirectPort = Annotated[int, PlainValidator(parse_redirect)]
HashKey = Annotated[str, PlainValidator(parse_hash_key)]
