"""ClientHello messages for tests: built field by field, and those of this machine's OpenSSL."""

from __future__ import annotations

import ssl
from collections.abc import Sequence


def vector(size: int, content: bytes) -> bytes:
    """Bytes behind their length, which has so many bytes."""
    return len(content).to_bytes(size, "big") + content


def extension(number: int, content: bytes) -> bytes:
    """One extension."""
    return number.to_bytes(2, "big") + vector(2, content)


def server_name(name: bytes, kind: int = 0) -> bytes:
    """The extension that names a host."""
    return extension(0, vector(2, bytes([kind]) + vector(2, name)))


def alpn(*names: bytes) -> bytes:
    """The extension that lists protocols."""
    return extension(16, vector(2, b"".join(vector(1, name) for name in names)))


def versions(*numbers: int) -> bytes:
    """The extension that lists versions."""
    return extension(43, vector(1, b"".join(number.to_bytes(2, "big") for number in numbers)))


def body(
    *extensions: bytes,
    legacy_version: int = 0x0303,
    session_id: bytes = b"",
    ciphers: bytes = b"\x13\x01",
    compression: bytes = b"\0",
    end: bytes = b"",
    has_extensions: bool = True,
) -> bytes:
    """The content of the message."""
    listed = vector(2, b"".join(extensions)) if has_extensions else b""
    return b"".join((
        legacy_version.to_bytes(2, "big"),
        bytes(range(32)),
        vector(1, session_id),
        vector(2, ciphers),
        vector(1, compression),
        listed,
        end,
    ))  # fmt: skip


def message(content: bytes) -> bytes:
    """The message with its header."""
    return b"\x01" + vector(3, content)


def records(raw: bytes, size: int = 16_384, version: bytes = b"\3\1") -> bytes:
    """The message in records of so many bytes at most."""
    pieces = (raw[at : at + size] for at in range(0, len(raw), size))
    return b"".join(b"\x16" + version + vector(2, piece) for piece in pieces)


def hello(*extensions: bytes) -> bytes:
    """A whole hello in one record."""
    return records(message(body(*extensions)))


def hello_of_openssl(
    name: str | None = "www.example.com",
    protocols: Sequence[str] = (),
    maximum: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED,
) -> bytes:
    """What Python's ssl sends first."""
    context = ssl.create_default_context()
    context.maximum_version = maximum
    if name is None:
        context.check_hostname = False
    if protocols:
        context.set_alpn_protocols(list(protocols))
    sent = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return sent.read()
    raise AssertionError("the handshake ended by itself")
