r"""One line of the access log in the combined format, as web servers write it and log analysers read it.

Owns the form::

    CLIENT - - [01/Jul/2026:12:30:00 +0000] "GET /v1 HTTP/1.1" STATUS BYTES "REFERER" "USER-AGENT"

Does not write anything. Invariants: whatever bytes a client sent, the result is one line of printable ASCII
that ends in a newline, has no quote inside of quotes and is shorter than 4096 bytes. Bytes that are not
printable ASCII, quotes and backslashes stand as ``\xHH``, as in nginx.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lbproc.telemetry.sink import PIPE_LIMIT

if TYPE_CHECKING:
    from collections.abc import Sequence

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_HOSTILE = re.compile(r"[^ !#-\[\]-~]")
_HALF_ESCAPE = re.compile(r"\\(?:x[0-9A-F]?)?\Z")

_ROOM = 700
"""Characters of referer and user agent each in a line that has to be cut. What remains is the request's."""

_BETWEEN = "\n"
"""Stands between the texts of a head, none of which can hold it."""


def _escape(octets: bytes) -> str:
    return _HOSTILE.sub(lambda found: f"\\x{ord(found[0]):02X}", octets.decode("latin-1"))


def render_combined_caller(client_ip: str | None) -> str:
    """The beginning of a line, from the connection: the client, and that nobody asked for its name."""
    return f"{client_ip or '-'} - -"


def render_combined_asked(
    method: bytes, target: bytes, version: str, referers: Sequence[bytes], agents: Sequence[bytes]
) -> str:
    """What of a line follows from the request's head: its first line, where it came from, who sent it.

    Args:
        method: as sent.
        target: as sent.
        version: ``"1.1"`` or ``"1.0"``.
        referers: the values of Referer, of which the first counts.
        agents: the values of User-Agent, likewise.
    """
    request = f"{_escape(method)} {_escape(target)} HTTP/{version}"
    return _BETWEEN.join((request, _first(referers), _first(agents)))


def _first(values: Sequence[bytes]) -> str:
    return _escape(values[0]) or "-" if values else "-"


COMBINED_NOT_UNDERSTOOD = _BETWEEN.join("---")


def render_combined_entry(*, time: str, caller: str, asked: str, status: int | None, bytes_out: int) -> bytes:
    """The line of one request, with its newline.

    Args:
        time: when the request ended, from ``UtcClock.stamp``.
        caller: from `render_combined_caller`.
        asked: from `render_combined_asked`.
        status: what the client got; 499 when it left before the head of a response.
            None stands as a hyphen: what was relayed has no status.
        bytes_out: response bytes to the client, head and body.
    """
    request, referer, agent = asked.split(_BETWEEN)
    code = "-" if status is None else status
    # 2026-07-01T12:30:00.125Z
    moment = f"{time[8:10]}/{_MONTHS[int(time[5:7]) - 1]}/{time[:4]}:{time[11:19]} +0000"
    line = f'{caller} [{moment}] "{request}" {code} {bytes_out} "{referer}" "{agent}"\n'
    if len(line) > PIPE_LIMIT:
        referer, agent = _cut(referer, _ROOM), _cut(agent, _ROOM)
        others = f'{caller} [{moment}] "" {code} {bytes_out} "{referer}" "{agent}"\n'
        request = _cut(request, PIPE_LIMIT - len(others))
        line = f'{caller} [{moment}] "{request}" {code} {bytes_out} "{referer}" "{agent}"\n'
    return line.encode("ascii")


def _cut(text: str, room: int) -> str:
    """The longest start that fits, without the half of an escape at its end."""
    return text if len(text) <= room else _HALF_ESCAPE.sub("", text[:room])
