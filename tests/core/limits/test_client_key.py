from __future__ import annotations

import pytest

from lbproc.core.limits.client_key import client_key


@pytest.mark.parametrize(
    ("address", "same_as"),
    [
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::9"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::2"),
    ],
)
def test_addresses_of_one_client(address: str, same_as: str) -> None:
    assert client_key(address) == client_key(same_as)


@pytest.mark.parametrize(
    ("address", "other"),
    [("2001:db8:0:1::1", "2001:db8:0:2::1"), ("192.0.2.1", "192.0.2.2"), ("192.0.2.1", "::c000:201")],
)
def test_addresses_of_two_clients(address: str, other: str) -> None:
    assert client_key(address) != client_key(other)


def test_what_is_no_address_has_no_key() -> None:
    with pytest.raises(ValueError, match="does not appear"):
        client_key("localhost")
