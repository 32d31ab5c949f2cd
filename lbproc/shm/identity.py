"""The hash under which a row or a pool is found again: by whoever attaches to the table, by any process.

Owns the hash. Which block has it is in the table, and in the supervisor's directory.
"""

from __future__ import annotations

from hashlib import blake2b

Identity = tuple[int, int]
"""Two words; never (0, 0), which is a free block."""


def identity_of(name: str) -> Identity:
    """The identity of a name."""
    # A lone surrogate cannot come from a TOML file, but a name must never be able to stop the supervisor.
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little") | 1


def row_name(pool: str, address: str) -> str:
    """What names a backend's row."""
    return f"{pool}\0{address}"


def row_identity(pool: str, address: str) -> Identity:
    """The identity of a backend's row."""
    return identity_of(row_name(pool, address))
