from __future__ import annotations

from lbproc.shm.key_hash import KeyHash
from lbproc.shm.table import Table


def test_names_kinds_and_secrets_make_different_hashes() -> None:
    hashes = {
        KeyHash(secret, kind).of(name)
        for secret in (b"one", b"another")
        for kind in (("connections", "a"), ("connections", "b"), ("connectionsa", ""), ("rate", "a"))
        for name in (b"\x01\x02\x03\x04", b"\x01\x02\x03\x05")
    }
    assert len(hashes) == 16
    assert all(one < 1 << 128 for one in hashes)


def test_the_same_name_has_the_same_hash() -> None:
    kind = KeyHash(b"secret", ("connections", "per_ip"))
    assert kind.of(b"name") == kind.of(b"name") == KeyHash(b"secret", ("connections", "per_ip")).of(b"name")


def test_a_name_of_a_limit_that_is_no_text_is_hashed_too() -> None:
    assert KeyHash(b"secret", ("connections", "\ud800")).of(b"name")


def test_each_table_has_a_secret_that_is_not_in_it(table: Table) -> None:
    assert len(table.secret) == 32
    assert table.secret not in bytes(table.cells)
    other = Table.attach(table.fd)
    assert other.secret == b""
    other.fd = -1
