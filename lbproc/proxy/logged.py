"""How requests are written to the access log: by ``[log] format``.

A format is what a listener's callers, plans and records are made with, so that a request looks at no setting:
with another format they are others. A new generation of the configuration makes them anew, which is how a
reload changes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from lbproc.proxy.record import CombinedRecord, Record, TlsRecord
from lbproc.proxy.relay_record import CombinedRelayRecord, RelayRecord
from lbproc.telemetry.combined import render_combined_asked, render_combined_caller
from lbproc.telemetry.entry import render_asked, render_caller

if TYPE_CHECKING:
    from lbproc.core.http.message import RequestHead


@dataclass(frozen=True, slots=True)
class LogFormat:
    """One format.

    Args:
        caller: what follows from the connection, of the client's address and the listener's name.
        asked: what follows from the request's head.
        record: accounts that write such lines.
        tls_record: those of requests that came by TLS.
        relay_record: accounts of connections that are relayed as they are, which do so too.
    """

    caller: Callable[[str | None, str], str]
    asked: Callable[[RequestHead], str]
    record: type[Record]
    tls_record: type[Record]
    relay_record: type[RelayRecord]


def _version(head: RequestHead) -> str:
    return "1.0" if head.http10 else "1.1"


def _json_asked(head: RequestHead) -> str:
    return render_asked(head.method, head.host, head.target, _version(head))


def _combined_caller(client_ip: str | None, _listener: str) -> str:
    return render_combined_caller(client_ip)


def _combined_asked(head: RequestHead) -> str:
    return render_combined_asked(
        head.method, head.target, _version(head), head.values(b"referer"), head.values(b"user-agent")
    )


JSON: Final = LogFormat(render_caller, _json_asked, Record, TlsRecord, RelayRecord)

FORMATS: Final[dict[Literal["json", "combined"], LogFormat]] = {
    "json": JSON,
    "combined": LogFormat(
        _combined_caller, _combined_asked, CombinedRecord, CombinedRecord, CombinedRelayRecord
    ),
}
