"""Keys of session tickets: the same in every process, other ones for each domain, and new ones by the clock.

Owns how they follow from one secret. Every process that was given the root of an epoch computes that of each
later one, and no process that of an earlier one (forward secrecy): who steals a process's memory reads no
session that was kept from before. Nobody needs to tell anybody, because epochs are multiples of a clock that
all processes of a host share.

    root of epoch n ──HKDF──▶ root of epoch n + 1
          └─────────HKDF(domain)──▶ key of a domain: name (16 bytes), HMAC (32), AES (32)

A session is only resumed where the key is the same. So what must not be carried from one host to another,
such as that a client has shown its certificate, stands in the domain.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from lbproc.types import Seconds

EPOCH: Final[Seconds] = 12 * 3600.0
"""How long a key is used. Each client pays for a change with one full handshake at most."""

ROOT_SIZE: Final = 32
KEY_SIZE: Final = 80
"""Bytes that OpenSSL takes: name, HMAC key and AES key."""

_NEXT: Final = b"lbproc tickets: next root"
_DOMAIN: Final = b"lbproc tickets: domain "
_HASH_SIZE: Final = 32


@dataclass(frozen=True, slots=True)
class TicketRoot:
    """What all keys of an epoch follow from.

    Args:
        epoch: its number.
        secret: random bytes.
    """

    epoch: int
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != ROOT_SIZE:
            raise ValueError(f"a root has {ROOT_SIZE} bytes")

    def at(self, epoch: int) -> TicketRoot:
        """The root of a later epoch; this one if that is not later."""
        if epoch <= self.epoch:
            return self
        secret = self.secret
        for _ in range(epoch - self.epoch):
            secret = hkdf_sha256(secret, _NEXT, ROOT_SIZE)
        return TicketRoot(epoch, secret)

    def key(self, domain: str) -> bytes:
        """The key of a domain: `KEY_SIZE` bytes."""
        return hkdf_sha256(self.secret, _DOMAIN + domain.encode(), KEY_SIZE)


def epoch_at(now: Seconds) -> int:
    """The epoch of an instant of the clock that all processes share."""
    return int(now // EPOCH)


def hkdf_sha256(secret: bytes, info: bytes, size: int, salt: bytes = b"") -> bytes:
    """Bytes that follow from a secret and tell nothing of it (RFC 5869).

    Args:
        secret: what to begin with.
        info: what the bytes are for.
        size: how many; at most 8160.
        salt: not secret; may be missing.
    """
    key = hmac.digest(salt or bytes(_HASH_SIZE), secret, hashlib.sha256)
    block = output = b""
    for number in range(1, -(-size // _HASH_SIZE) + 1):
        block = hmac.digest(key, block + info + bytes([number]), hashlib.sha256)
        output += block
    return output[:size]
