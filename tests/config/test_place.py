# ruff: noqa: E501  messages stand here word for word, one on a line
from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from lbproc.config import place
from lbproc.config.place import Surroundings
from lbproc.types import Address, TcpAddress, UnixAddress
from tests.config.refusal import accepted, refusal

BIND: TypeAdapter[Any] = TypeAdapter(place.BindAddress)
ADMIN: TypeAdapter[Any] = TypeAdapter(place.AdminAddress)
TARGET: TypeAdapter[Any] = TypeAdapter(place.TargetAddress)
SOCKET: TypeAdapter[Any] = TypeAdapter(place.SocketPath)
ACCESS: TypeAdapter[Any] = TypeAdapter(place.AccessTarget)
ERROR: TypeAdapter[Any] = TypeAdapter(place.ErrorTarget)
NETWORK: TypeAdapter[Any] = TypeAdapter(place.Network)
AROUND = Surroundings(base=Path("/etc/lbproc"))


@pytest.mark.parametrize(
    ("kind", "value", "result"),
    [
        (BIND, "0.0.0.0:8080", TcpAddress("0.0.0.0", 8080)),
        (BIND, "127.0.0.1:0", TcpAddress("127.0.0.1", 0)),
        (BIND, "[0:0::1]:80", TcpAddress("::1", 80)),
        (BIND, "[fe80::1%eth0]:80", TcpAddress("fe80::1%eth0", 80)),
        (BIND, "unix:/run/a.sock", UnixAddress("/run/a.sock")),
        (BIND, "unix:a.sock", UnixAddress("/etc/lbproc/a.sock")),
        (TARGET, "App.Internal:080", TcpAddress("app.internal", 80)),
        (TARGET, "app.internal.:80", TcpAddress("app.internal.", 80)),
        (TARGET, "localhost:80", TcpAddress("localhost", 80)),
        (TARGET, "unix:a.sock", UnixAddress("/etc/lbproc/a.sock")),
        (SOCKET, "control.sock", Path("/etc/lbproc/control.sock")),
        (SOCKET, "/run/control.sock", Path("/run/control.sock")),
        (ACCESS, "stdout", "stdout"),
        (ACCESS, "off", "off"),
        (ACCESS, "access.log", Path("/etc/lbproc/access.log")),
        (ACCESS, "/var/log/access", Path("/var/log/access")),
        (ACCESS, "./web:80", Path("/etc/lbproc/web:80")),
        (ERROR, "stderr", "stderr"),
        (ERROR, "./errors", Path("/etc/lbproc/errors")),
        (NETWORK, "10.0.0.0/8", ip_network("10.0.0.0/8")),
        (NETWORK, "10.0.0.1", ip_network("10.0.0.1/32")),
        (NETWORK, "fd00::/8", ip_network("fd00::/8")),
    ],
)
def test_a_right_place_is_taken(kind: TypeAdapter[Any], value: object, result: object) -> None:
    assert accepted(kind, value, AROUND) == result


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (BIND, 8080, 'is an integer, not an address; write host and port as a string such as "0.0.0.0:8080"'),
        (ADMIN, 9900, 'is an integer, not an address; write host and port as a string such as "127.0.0.1:9900"'),
        (BIND, True, 'is a boolean, not an address; write an address such as "0.0.0.0:8080"'),
        (BIND, "localhost:80", '"localhost:80" names a host, and only an IP address can be listened on; write one such as "127.0.0.1:80"'),
        (BIND, "web.internal:80", '"web.internal:80" names a host, and only an IP address can be listened on; write one such as "0.0.0.0:80"'),
        (BIND, ":8080", '":8080" is not an address; write host and port: "0.0.0.0:8080", or for IPv6 "[::]:8080"'),
        (BIND, "*:8080", '"*:8080" is not an address; write host and port: "0.0.0.0:8080", or for IPv6 "[::]:8080"'),
        (BIND, "8080", '"8080" is not an address; write host and port: "0.0.0.0:8080", or for IPv6 "[::]:8080"'),
        (BIND, "0.0.0.0", '"0.0.0.0" is not an address; write the port too: "0.0.0.0:8080"'),
        (BIND, "::", '"::" is not an address; write the port too: "[::]:8080"'),
        (BIND, "/run/a.sock", '"/run/a.sock" is not an address; a Unix socket is written "unix:/run/a.sock"'),
        (BIND, "unix:", '"unix:" has no path of a socket; write one such as "unix:/run/app.sock"'),
        (TARGET, "unix:", '"unix:" has no path of a socket; write one such as "unix:/run/app.sock"'),
        (TARGET, "unix:/run/", '"unix:/run/" has no path of a socket; write one such as "unix:/run/app.sock"'),
        (TARGET, "unix:unix:/run/a", '"unix:unix:/run/a" has no path of a socket; write one such as "unix:/run/app.sock"'),
        (TARGET, "unix:/" + "a" * 107, f'"/{"a" * 59}..." is too long for a socket; the kernel takes at most 107 bytes; write a shorter path'),
        (BIND, "1.2.3:80", '"1.2.3:80" has no valid IPv4 address; write four numbers of 0 to 255, such as "0.0.0.0:8080"'),
        (BIND, "[fe80::1%a b]:80", '"fe80::1%a b" has no valid zone; write the name of an interface, such as "[fe80::1%eth0]:80"'),
        (BIND, "", '"" is not an address; write host:port, [IPv6]:port or unix:PATH, such as "0.0.0.0:8080"'),
        (BIND, "[::1", '"[::1" is not an address; write host:port, [IPv6]:port or unix:PATH, such as "0.0.0.0:8080"'),
        (TARGET, 80, 'is an integer, not an address; write an address such as "10.0.0.1:8000"'),
        (TARGET, "app:0", '"app:0" has port 0; write the port that the backend listens on, 1 to 65535'),
        (TARGET, "app", '"app" is not an address; write the port too: "app:8000"'),
        (TARGET, "http://app:80/", '"http://app:80/" is not an address; leave out the scheme and the path: "10.0.0.1:8000"'),
        (TARGET, "256.0.0.1:80", '"256.0.0.1:80" has no valid IPv4 address; write four numbers of 0 to 255, such as "10.0.0.1:8000"'),
        (TARGET, "a..b:80", '"a..b:80" has no valid host name; write one such as "10.0.0.1:8000" or "app.internal:80"'),
        (TARGET, "-a:80", '"-a:80" has no valid host name; write one such as "10.0.0.1:8000" or "app.internal:80"'),
        (SOCKET, 1, 'is an integer, not a path; write a path such as "/run/lbproc/control.sock"'),
        (SOCKET, "unix:/a", '"unix:/a" is not a path; write the path alone: "/a"'),
        (SOCKET, "unix:", '"unix:" is not a path; write the path alone: "/run/lbproc/control.sock"'),
        (SOCKET, "/run/", '"/run/" is not the path of a file; write one such as "/run/lbproc/control.sock"'),
        (SOCKET, "/a\x1b", '"/a\\u001B" is not the path of a file; write one such as "/run/lbproc/control.sock"'),
        (SOCKET, "/" + "a" * 107, f'"/{"a" * 59}..." is too long for a socket; the kernel takes at most 107 bytes; write a shorter path'),
        (ACCESS, "syslog", 'this version does not write to syslog; write "stdout", "off" or a path such as "/var/log/lbproc/access.log"'),
        (ACCESS, "stdot", '"stdot" is not "stdout", "off" or a path; did you mean "stdout"? write "stdout", "off" or a path; a file beside this one is "./NAME"'),
        (ACCESS, "zzz", '"zzz" is not "stdout", "off" or a path; write "stdout", "off" or a path; a file beside this one is "./NAME"'),
        (ACCESS, "/var/log/", '"/var/log/" is not the path of a file; write one such as "/var/log/lbproc.log"'),
        (ACCESS, "unix:/dev/log", '"unix:/dev/log" is an address, and logs go to files; write "stdout", "off" or a path; a file beside this one is "./NAME"'),
        (ACCESS, "syslog:", '"syslog:" is not "stdout", "off" or a path; write "stdout", "off" or a path; a file beside this one is "./NAME"'),
        (ACCESS, "10.0.0.1:514", '"10.0.0.1:514" is an address, and logs go to files; write "stdout", "off" or a path; a file beside this one is "./NAME"'),
        (ACCESS, "loghost:514", '"loghost:514" is an address, and logs go to files; write "stdout", "off" or a path; a file beside this one is "./NAME"'),
        (ERROR, "[::1]:514", '"[::1]:514" is an address, and logs go to files; write "stderr" or a path; a file beside this one is "./NAME"'),
        (ERROR, "udp://logs.internal", '"udp://logs.internal" is an address, and logs go to files; write "stderr" or a path; a file beside this one is "./NAME"'),
        (ERROR, False, 'is a boolean, not where the log goes; write where the log goes such as "stderr" or a path'),
        (NETWORK, 10, 'is an integer, not a network; write a network such as "10.0.0.0/8"'),
        (NETWORK, "10.0.0.1/8", '"10.0.0.1/8" has bits set after its prefix; write "10.0.0.0/8", or "10.0.0.1" alone'),
        (NETWORK, "all", '"all" is not a network; write an address or a network such as "10.0.0.0/8" or "fd00::/8"'),
    ],
)  # fmt: skip
def test_a_wrong_place_is_told_what_would_be_right(
    kind: TypeAdapter[Any], value: object, message: str
) -> None:
    assert refusal(kind, value, AROUND) == message


def test_without_a_loader_paths_stay_as_they_are_and_no_file_is_read() -> None:
    assert accepted(SOCKET, "a.sock") == Path("a.sock")
    with pytest.raises(ValueError, match="cannot be read here"):
        Surroundings().read_file(Path("secret"))


@settings(deadline=None)
@given(st.text(max_size=40) | st.from_regex(r"[\[\]0-9a-f:.%a-z]{1,20}:[0-9]{1,3}", fullmatch=True))
def test_an_address_that_is_taken_is_taken_in_its_written_form_too(text: str) -> None:
    for kind in (BIND, TARGET):
        try:
            address: Address = accepted(kind, text, AROUND)
        except ValidationError:
            continue
        assert accepted(kind, str(address), AROUND) == address
        assert str(address).isprintable()
