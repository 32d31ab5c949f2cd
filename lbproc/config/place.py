"""Places: file paths, socket addresses and networks of a configuration.

Owns how they are written and what is a usable one for which purpose. Relative paths count from the
directory of the configuration, which the loader passes as ``Surroundings``; so do the paths of Unix
sockets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import PlainSerializer, PlainValidator, ValidationInfo

from lbproc.config.wording import listed, nearest, quote, wrong, wrong_type
from lbproc.types import Address, TcpAddress, UnixAddress, parse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LONGEST_SOCKET_PATH: Final = 107  # bytes; sockaddr_un holds 108 with the final NUL
LONGEST_PATH: Final = 4095  # bytes; PATH_MAX with the final NUL is 4096
_SOCKET_EXAMPLE: Final = "/run/lbproc/control.sock"
_PID_EXAMPLE: Final = "/run/lbproc/lbproc.pid"
_ADDRESS_LIKE: Final = re.compile(r"unix:.*|[a-z0-9+.-]+://.*|[^/]*:[0-9]{1,5}", re.DOTALL)
_ZONE: Final = re.compile(r"[A-Za-z0-9_.-]{1,15}")  # the name of a network interface


def _refuse_to_read(path: Path) -> str:
    """Reads no file: the surroundings of a model that is built without a loader."""
    raise ValueError(f"cannot be read here: {quote(str(path))}")


@dataclass(frozen=True, slots=True)
class FileContent:
    """What was read of a file, and which file it was.

    Args:
        octets: all of it.
        mode: its permissions.
        stamp: differs as soon as the file is another one, or was written to.
    """

    octets: bytes = field(repr=False)
    mode: int
    stamp: Stamp


Stamp = tuple[int, int, int, int]
"""Device, inode, size, and when it was last written to, in nanoseconds."""


def _refuse_to_read_pem(path: Path) -> FileContent:
    """Reads no file, likewise."""
    raise ValueError(_refuse_to_read(path))


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What lies around the files while they are read.

    Args:
        base: relative paths count from here.
        environ: where ``{ env = "NAME" }`` is looked up.
        read_file: gives the text of a secret's file; raises OSError, or ValueError with what is wrong.
        read_pem: gives the content of a file of certificates or a key; raises likewise.
    """

    base: Path = Path()
    environ: Mapping[str, str] = field(default_factory=dict)
    read_file: Callable[[Path], str] = _refuse_to_read
    read_pem: Callable[[Path], FileContent] = _refuse_to_read_pem


def surroundings(info: ValidationInfo) -> Surroundings:
    """The surroundings given with this validation, or empty ones."""
    return info.context if isinstance(info.context, Surroundings) else Surroundings()


def resolve_path(text: str, around: Surroundings) -> Path:
    """A path of the configuration, counted from the directory of its file."""
    return around.base / text


def parse_path(value: str, info: ValidationInfo, *, example: str = "/var/log/lbproc.log") -> Path:
    """The path of a file."""
    if not _names_file(value):
        raise wrong(f"{quote(value)} is not the path of a file", f'write one such as "{example}"')
    return resolve_path(value, surroundings(info))


def _names_file(path: str) -> bool:
    """Whether a text may be the path of a file, and can be printed."""
    return bool(path) and path.isprintable() and not path.endswith("/")


def parse_socket_path(value: object, info: ValidationInfo) -> Path:
    """The path of a Unix socket, which the kernel bounds."""
    if not isinstance(value, str):
        raise wrong_type(value, "a path", f'"{_SOCKET_EXAMPLE}"')
    if value.startswith("unix:"):
        right = value.removeprefix("unix:") or _SOCKET_EXAMPLE
        raise wrong(f"{quote(value)} is not a path", f"write the path alone: {quote(right)}")
    return _bounded(parse_path(value, info, example=_SOCKET_EXAMPLE))


def parse_pid_path(value: object, info: ValidationInfo) -> Path:
    """The path of a pid file."""
    if not isinstance(value, str):
        raise wrong_type(value, "a path", f'"{_PID_EXAMPLE}"')
    if len(value.encode("utf-8", "surrogatepass")) > LONGEST_PATH:
        raise wrong(
            "the path is too long", f'write one of at most {LONGEST_PATH} bytes, such as "{_PID_EXAMPLE}"'
        )
    return parse_path(value, info, example=_PID_EXAMPLE)


def _parse_unix_address(value: str, info: ValidationInfo) -> UnixAddress:
    """``unix:PATH``."""
    path = value.removeprefix("unix:")
    if not _names_file(path) or path.startswith("unix:"):
        raise wrong(f"{quote(value)} has no path of a socket", 'write one such as "unix:/run/app.sock"')
    return UnixAddress(str(_bounded(resolve_path(path, surroundings(info)))))


def _bounded(path: Path) -> Path:
    """The path of a socket, if the kernel takes it."""
    if len(str(path).encode()) > LONGEST_SOCKET_PATH:
        raise wrong(
            f"{quote(str(path))} is too long for a socket",
            f"the kernel takes at most {LONGEST_SOCKET_PATH} bytes; write a shorter path",
        )
    return path


def parse_log_target(value: object, info: ValidationInfo, *, words: tuple[str, ...]) -> Path | str:
    """Where a log goes: one of a few words, or a path, which holds a slash or a dot and is no address."""
    known = listed((*map(quote, words), "a path"))
    if not isinstance(value, str):
        raise wrong_type(value, "where the log goes", f"{quote(words[0])} or a path")
    if value in words:
        return value
    if _ADDRESS_LIKE.fullmatch(value):
        raise wrong(
            f"{quote(value)} is an address, and logs go to files",
            f'write {known}; a file beside this one is "./NAME"',
        )
    if "/" not in value and "." not in value:
        guess = nearest(value, words)
        right = f"did you mean {quote(guess)}? " if guess else ""
        raise wrong(
            f"{quote(value)} is not {known}",
            f'{right}write {known}; a file beside this one is "./NAME"',
        )
    return parse_path(value, info)


def parse_access_target(value: object, info: ValidationInfo) -> Path | str:
    """Where the access log goes."""
    if value == "syslog":
        raise wrong(
            "this version does not write to syslog",
            'write "stdout", "off" or a path such as "/var/log/lbproc/access.log"',
        )
    return parse_log_target(value, info, words=("stdout", "off"))


def parse_bind(value: object, info: ValidationInfo, *, example: str) -> Address:
    """An address to listen on: an IP literal with a port (0: any free one), or a Unix socket."""
    if isinstance(value, int) and not isinstance(value, bool):
        raise wrong("is an integer, not an address", f'write host and port as a string such as "{example}"')
    address = _parse_address(value, info, example)
    if isinstance(address, TcpAddress) and not _is_literal(address.host):
        right = "127.0.0.1" if address.host == "localhost" else "0.0.0.0"  # noqa: S104  words of a message
        raise wrong(
            f"{quote(str(value))} names a host, and only an IP address can be listened on",
            f'write one such as "{right}:{address.port}"',
        )
    return address


def parse_target(value: object, info: ValidationInfo) -> Address:
    """An address to connect to: an IP literal or a host name with a port, or a Unix socket."""
    address = _parse_address(value, info, "10.0.0.1:8000")
    if isinstance(address, TcpAddress) and address.port == 0:
        raise wrong(
            f"{quote(str(value))} has port 0", "write the port that the backend listens on, 1 to 65535"
        )
    return address


def _parse_address(value: object, info: ValidationInfo, example: str) -> Address:
    """An address in its one spelling: names in lower case, IPv6 shortened, socket paths absolute."""
    if not isinstance(value, str):
        raise wrong_type(value, "an address", f'"{example}"')
    if value.startswith("unix:"):
        return _parse_unix_address(value, info)
    try:
        address = parse_address(value)
    except ValueError:
        right = (
            _meant_address(value, example)
            or f'write host:port, [IPv6]:port or unix:PATH, such as "{example}"'
        )
        raise wrong(f"{quote(value)} is not an address", right) from None
    assert isinstance(address, TcpAddress)
    if ":" in address.host:
        return TcpAddress(_parse_ipv6(address.host), address.port)
    if re.fullmatch(r"[0-9.]+", address.host) and not _is_literal(address.host):
        raise wrong(
            f"{quote(value)} has no valid IPv4 address",
            f'write four numbers of 0 to 255, such as "{example}"',
        )
    labels = address.host.removesuffix(".").split(".")
    if not all(0 < len(label) < 64 and not label.startswith("-") for label in labels):
        raise wrong(
            f"{quote(value)} has no valid host name", f'write one such as "{example}" or "app.internal:80"'
        )
    return TcpAddress(address.host.lower(), address.port)


def _parse_ipv6(host: str) -> str:
    """An IPv6 literal in its shortest form. A zone is the name of a network interface."""
    _, percent, zone = host.partition("%")
    if percent and not _ZONE.fullmatch(zone):
        raise wrong(
            f"{quote(host)} has no valid zone", 'write the name of an interface, such as "[fe80::1%eth0]:80"'
        )
    return str(ip_address(host))


def _meant_address(text: str, example: str) -> str | None:
    """What to write instead of a text that is often written for an address."""
    host, _, port = example.rpartition(":")
    if "://" in text:
        return f'leave out the scheme and the path: "{example}"'
    if text.startswith(("/", "./", "../")):
        return f"a Unix socket is written {quote('unix:' + text)}"
    if re.fullmatch(r"[*:]?:?[0-9]{1,5}", text):
        six, number = "::" if host == "0.0.0.0" else "::1", text.lstrip("*:")  # noqa: S104  words of a message
        return f'write host and port: "{host}:{number}", or for IPv6 "[{six}]:{number}"'
    if _is_literal(text):
        return f"write the port too: {quote(str(TcpAddress(text, int(port))))}"
    if ":" not in text and re.fullmatch(r"[A-Za-z0-9._-]{1,253}", text):
        return f'write the port too: "{text}:{port}"'
    return None


def _is_literal(host: str) -> bool:
    """Whether a host is an IP address rather than a name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def parse_network(value: object) -> IPv4Network | IPv6Network:
    """A network, ``10.0.0.0/8``, or a single address."""
    if not isinstance(value, str):
        raise wrong_type(value, "a network", '"10.0.0.0/8"')
    try:
        return ip_network(value)
    except ValueError:
        pass
    try:
        meant = str(ip_network(value, strict=False))
    except ValueError:
        raise wrong(
            f"{quote(value)} is not a network",
            'write an address or a network such as "10.0.0.0/8" or "fd00::/8"',
        ) from None
    raise wrong(
        f"{quote(value)} has bits set after its prefix",
        f'write "{meant}", or "{ip_address(value.partition("/")[0])}" alone',
    )


SocketPath = Annotated[Path, PlainValidator(parse_socket_path), PlainSerializer(str)]
PidPath = Annotated[Path, PlainValidator(parse_pid_path), PlainSerializer(str)]
Network = Annotated[IPv4Network | IPv6Network, PlainValidator(parse_network), PlainSerializer(str)]
BindAddress = Annotated[
    TcpAddress | UnixAddress,
    PlainValidator(partial(parse_bind, example="0.0.0.0:8080")),
    PlainSerializer(str),
]
AdminAddress = Annotated[
    TcpAddress | UnixAddress,
    PlainValidator(partial(parse_bind, example="127.0.0.1:9900")),
    PlainSerializer(str),
]
TargetAddress = Annotated[TcpAddress | UnixAddress, PlainValidator(parse_target), PlainSerializer(str)]
AccessTarget = Annotated[
    Literal["stdout", "off"] | Path,
    PlainValidator(parse_access_target),
    PlainSerializer(str),
]
ErrorTarget = Annotated[
    Literal["stderr"] | Path,
    PlainValidator(partial(parse_log_target, words=("stderr",))),
    PlainSerializer(str),
]
