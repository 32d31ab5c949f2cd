"""What the admin listener answers: ``/healthz`` and ``/metrics``.

Owns paths, methods and the token. ``/healthz`` needs no token: load balancers and orchestrators that ask it
seldom can carry one, and it tells nothing but whether traffic is served.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable

from lbproc.admin.server import Request, Response
from lbproc.config.secret import Secret
from lbproc.shm.views import ProcessState, Reader, Role

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"


class Endpoints:
    """The answers.

    Args:
        reader: of the table.
        render_metrics: gives the metrics in Prometheus' text format.
        token: what clients must present, or None.
    """

    __slots__ = ("_reader", "_render_metrics", "_token")

    def __init__(self, reader: Reader, render_metrics: Callable[[], bytes], token: Secret | None) -> None:
        self._reader = reader
        self._render_metrics = render_metrics
        self._token = token

    def change_token(self, token: Secret | None) -> None:
        """Asks for another token from now on."""
        self._token = token

    def answer(self, request: Request) -> Response:
        """The response to a request."""
        path, _, _ = request.target.partition(b"?")
        if path == b"/healthz":
            return self._allowed(request) or self._healthz()
        if not self._is_authorized(request):
            challenge = (("WWW-Authenticate", 'Bearer realm="lbproc"'),)
            return Response(401, _TEXT, b"a bearer token is needed\n", challenge, is_refusal=True)
        if path == b"/metrics":
            return self._allowed(request) or Response(200, METRICS_TYPE, self._render_metrics())
        return Response(404, _TEXT, b"there are /healthz and /metrics\n")

    def _allowed(self, request: Request) -> Response | None:
        if request.method in {b"GET", b"HEAD"}:
            return None
        return Response(405, _TEXT, b"only GET and HEAD\n", (("Allow", "GET, HEAD"),))

    def _is_authorized(self, request: Request) -> bool:
        if self._token is None:
            return True
        scheme, _, presented = request.authorization.partition(b" ")
        # in constant time, so that answers do not tell how much of a guess was right
        is_same = hmac.compare_digest(presented.strip(), self._token.reveal().encode())
        return is_same and scheme.lower() == b"bearer"

    def _healthz(self) -> Response:
        ready = sum(
            column.role is Role.WORKER and column.state is ProcessState.READY
            for column in self._reader.columns()
        )
        status = {"status": "ok" if ready else "unavailable", "workers_ready": ready}
        return Response(200 if ready else 503, _JSON, json.dumps(status).encode() + b"\n")
