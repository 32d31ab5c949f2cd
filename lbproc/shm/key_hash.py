"""The hash that names of clients have in the table: 128 bits of each, of which nobody outside can aim any.

Owns the hash. The secret is the table's: made at the start, known to the processes that were forked from
there, and kept over reloads and the deaths of workers. It is in no segment, log or answer.
"""

from __future__ import annotations

from hashlib import blake2b


class KeyHash:
    """The keyed hash of names of one kind.

    Args:
        secret: of the table.
        kind: what is named, such as ``("connections", "per_ip")``. Names of another kind have other hashes.
    """

    __slots__ = ("_begun",)

    def __init__(self, secret: bytes, kind: tuple[str, ...]) -> None:
        self._begun = blake2b(key=secret, digest_size=16)
        for part in kind:
            encoded = part.encode("utf-8", "surrogatepass")
            self._begun.update(len(encoded).to_bytes(4, "little") + encoded)

    def of(self, name: bytes) -> int:
        """The hash of a name."""
        hashing = self._begun.copy()
        hashing.update(name)
        return int.from_bytes(hashing.digest(), "little")
