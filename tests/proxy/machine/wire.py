"""How heads and bodies are written in the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.proxy.machine.messages import Fields


def payload(mark: bytes, size: int) -> bytes:
    """Bytes that tell where they are from."""
    return (mark * (size // len(mark) + 1))[:size]


def chunks(data: bytes) -> bytes:
    """The chunked coding in pieces of growing size, sometimes with an extension or a trailer."""
    coded, step, at = [], 1, 0
    while at < len(data):
        piece = data[at : at + step]
        coded.append(b"%x%b\r\n%b\r\n" % (len(piece), b";n=v" if step == 4 else b"", piece))
        at += step
        step *= 4
    trailer = b"X-Sum: 1\r\n" if len(data) % 2 else b""
    return b"".join(coded) + b"0\r\n" + trailer + b"\r\n"


def broken_chunks(data: bytes, bad_size: bytes) -> bytes:
    """The chunked coding with a wrong size line in place of the last one."""
    whole = chunks(data[: len(data) & ~1])
    return whole[: -len(b"0\r\n\r\n")] + bad_size + b"\r\nhello\r\n0\r\n\r\n"


def lines(fields: Fields) -> bytes:
    return b"".join(b"%b: %b\r\n" % pair for pair in fields)


def options(said: tuple[bytes, ...], headers: Fields) -> list[bytes]:
    """The tokens of ``Connection``: what was said, and the hop-by-hop header if there is one."""
    return [*said, b"X-Hop"] if any(name == b"X-Hop" for name, _ in headers) else [*said]
