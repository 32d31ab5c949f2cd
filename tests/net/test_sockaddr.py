"""Addresses as socket calls want them."""

from __future__ import annotations

import socket

import pytest

from lbproc.net.sockaddr import address_family, bound_address, socket_address
from lbproc.types import TcpAddress


@pytest.mark.parametrize(
    ("host", "family", "expected"),
    [
        ("127.0.0.1", socket.AF_INET, ("127.0.0.1", 80)),
        ("::1", socket.AF_INET6, ("::1", 80)),
        ("fe80::1%7", socket.AF_INET6, ("fe80::1", 80, 0, 7)),
        ("fe80::1%lo", socket.AF_INET6, ("fe80::1", 80, 0, socket.if_nametoindex("lo"))),
    ],
)
def test_an_address_becomes_what_bind_takes(
    host: str, family: socket.AddressFamily, expected: tuple[object, ...]
) -> None:
    address = TcpAddress(host, 80)
    assert address_family(address) == family
    assert socket_address(address) == expected


def test_an_interface_that_is_not_there_is_an_error() -> None:
    with pytest.raises(OSError, match="no interface"):
        socket_address(TcpAddress("fe80::1%nowhere0", 80))


def test_the_bound_address_tells_the_port_that_the_kernel_chose() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address = bound_address(sock)
    assert address.host == "127.0.0.1"
    assert address.port > 0
