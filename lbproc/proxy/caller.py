"""The other end of a client connection, as far as every request on it needs it.

Owns what follows from the peer's address and from how it came, worked out once per connection: whether it is
believed, and how it is written in forwarding headers and log lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbproc.core.http.forwarding import fresh_ids, identify_client, is_trusted
from lbproc.core.http.render import render_forwarding, render_request_start

if TYPE_CHECKING:
    from random import Random

    from lbproc.proxy.arrival import Arrival
    from lbproc.proxy.http_listener import HttpListener
    from lbproc.proxy.plan import Plan
    from lbproc.proxy.record import Record


class Caller:
    """Who speaks on a client connection.

    Args:
        peer_ip: the peer's address, "" for a Unix socket.
        listener: says whom it trusts.
        arrival: how the connection came, where something was said before its protocol began.

    Attributes:
        peer_ip: as given.
        planner: makes the plans for requests of such a peer.
        tls: the version of TLS that the client speaks, or None.
        is_foreign: what the client has shown of itself is not what any host asks for any more.
        logged: what of log lines follows from the connection.
        begin_record: makes the account of a request, of the worker's context and of this.
    """

    __slots__ = (
        "_certificate",
        "_forwarded_for",
        "_listener",
        "_trusted",
        "begin_record",
        "is_foreign",
        "logged",
        "peer_ip",
        "planner",
        "tls",
    )

    def __init__(self, peer_ip: str, listener: HttpListener, arrival: Arrival | None = None) -> None:
        self.peer_ip = peer_ip
        self._listener = listener
        self._trusted = bool(listener.trusted) and is_trusted(peer_ip, listener.trusted)
        self._forwarded_for = f"X-Forwarded-For: {peer_ip}\r\n".encode("ascii") if peer_ip else b""
        log_format = listener.directions.log_format
        self.logged = log_format.caller(peer_ip or None, listener.name)
        self.begin_record: type[Record] = log_format.record
        self.tls: str | None = None
        self.is_foreign = False
        self._certificate = b""
        if arrival is None:
            self.planner = listener.trusted_planner if self._trusted else listener.planner
        else:
            self._greet(arrival)

    def _greet(self, arrival: Arrival) -> None:
        """Takes over what was said before the first request."""
        self.planner = self._listener.planner_for(arrival, trusted=self._trusted)
        self._certificate = arrival.certificate
        self._forwarded_for = arrival.certificate + self._forwarded_for
        hosts = None if self._listener.door is None else self._listener.door.hosts
        self.is_foreign = arrival.tls is not None and (hosts is None or not hosts.has_domain(arrival.domain))
        tls = arrival.client_tls
        if tls is not None:
            self.tls = tls.version or None
            self.begin_record = self._listener.directions.log_format.tls_record

    def introduce(self, plan: Plan, record: Record, random: Random) -> bytes:
        """The end of the head that the backend gets: who asks, with ids of this request's own.

        Args:
            plan: of the request.
            record: gets the client's address and the request id.
            random: for new ids.
        """
        if self._trusted:
            scheme = self.planner.scheme
            forwarding = identify_client(plan.head, self.peer_ip, self._listener.trusted, random, scheme)
            record.client_ip = forwarding.client_ip
            record.request_id = forwarding.request_id
            log_format = self._listener.directions.log_format
            record.caller = log_format.caller(forwarding.client_ip or None, self._listener.name)
            return self._certificate + render_forwarding(plan.head, forwarding)
        record.request_id, traceparent = fresh_ids(random)
        ids = f"{record.request_id}\r\ntraceparent: {traceparent}\r\n\r\n"
        return b"".join((self._forwarded_for, plan.origin, ids.encode("ascii")))

    def start_for(self, plan: Plan, default_host: bytes) -> bytes:
        """The beginning of that head.

        Args:
            plan: of the request.
            default_host: what a request that names no host is taken to mean.
        """
        if plan.head.host:
            return plan.start
        return render_request_start(plan.head, trusted=self._trusted, default_host=default_host)
