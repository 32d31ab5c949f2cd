"""TLS towards backends: whom connections are made secret with, by which contexts, and which session goes on.

Owns the contexts of the pools, which are shared by all pools and generations that have the same rules, the
name that a backend is asked for, and the session of each backend that later connections resume.

Decisions:
    - A session is fetched once and resumed many times, until the backend does not want it any more: to fetch
      one costs Python as much as a handshake (0.12 ms of the client's CPU), which resumption is to save (0.45
      ms in full, 0.33 resumed, TLS 1.3, 2026). With TLS 1.2 it saves half.
    - It is resumed for `MAX_SESSION_AGE` at most, because a session that goes on is not verified anew: a
      certificate that has expired, or was replaced, is noticed by then.
    - Sessions belong to one backend and one context. Other rules are another context, and what was verified
      by the rules before is forgotten.
"""

from __future__ import annotations

import hashlib
import os
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary, ref

import trio

from lbproc.net.tls.context import HTTP_ALPN, client_context
from lbproc.net.tls.failure import TlsFailed
from lbproc.net.tls.transport import TlsTransport
from lbproc.types import UnixAddress, parse_address

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lbproc.config.tls import BackendTlsConfig
    from lbproc.net.readiness import Deadlines
    from lbproc.net.transport import Transport
    from lbproc.types import Address, Seconds

MAX_SESSION_AGE: Final[Seconds] = 3600.0
"""As long as a connection may live: whom it leads to is verified as often."""

NO_ALPN: Final[tuple[str, ...]] = ()
"""What is offered where nobody knows which protocol is spoken inside."""


def server_name_of(configured: str | None, address: Address) -> str:
    """The name that a backend is asked for, and that its certificate must be for: a host or an IP address."""
    if configured is not None:
        name = configured
    elif isinstance(address, UnixAddress):
        name = "localhost"
    else:
        name = address.host.partition("%")[0]
    return name.rstrip(".")


class ClientContexts:
    """Contexts by what they are made of, as long as somebody has them.

    A context that two configurations ask for is made once, so sessions outlive a reload that does not change
    it. Making one with the system's authorities takes 30 ms, so it is not done on the loop.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: WeakValueDictionary[tuple[object, ...], ssl.SSLContext] = WeakValueDictionary()

    def find(self, config: BackendTlsConfig, alpn: Sequence[str] = HTTP_ALPN) -> ssl.SSLContext:
        """The context for a table.

        Args:
            config: of a pool.
            alpn: the protocols that are offered.

        Raises:
            ConfigError: OpenSSL refuses something.
        """
        pair = config.certificate
        made_of = (
            config.verify,
            config.min_version,
            config.ca.content if config.ca is not None else _stamps_of_system() if config.verify else None,
            None if pair is None else (pair.cert.content, hashlib.sha256(pair.key.content).digest()),
            tuple(alpn),
        )
        context = self._known.get(made_of)
        if context is None:
            context = self._known[made_of] = client_context(config, alpn)
        return context

    def for_pool(self, config: BackendTlsConfig) -> PoolTls:
        """What the connections of a pool need."""
        return PoolTls(config.server_name, self.find(config), self.find(config, NO_ALPN))


def _stamps_of_system() -> tuple[object, ...]:
    """By which it is seen that the authorities of the system have changed."""
    paths = ssl.get_default_verify_paths()
    return tuple(_stamp(path) for path in (paths.cafile, paths.capath) if path is not None)


def _stamp(path: str) -> tuple[int, ...]:
    try:
        status = os.stat(path)  # noqa: PTH116  as a string it comes, and as one it goes
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@dataclass(frozen=True, slots=True)
class PoolTls:
    """TLS towards the backends of a pool. Two are equal when what was verified by one holds for the other.

    Args:
        server_name: as configured.
        http: for connections that carry HTTP.
        relay: for those that carry anything.
    """

    server_name: str | None
    http: ssl.SSLContext
    relay: ssl.SSLContext

    def towards(self, address: str) -> BackendTls:
        """TLS towards one of its backends, by its address as configured."""
        name = server_name_of(self.server_name, parse_address(address))
        return BackendTls(Way(self.http, name), Way(self.relay, name))


class Way:
    """TLS towards one backend, by one context.

    Args:
        context: verifies, or does not.
        server_name: is asked for, if it is no IP address, and must be in the certificate.
    """

    __slots__ = ("_context", "_expires_at", "_latest", "_session", "server_name")

    def __init__(self, context: ssl.SSLContext, server_name: str) -> None:
        self.server_name = server_name
        self._context = context
        self._session: ssl.SSLSession | None = None
        self._expires_at = 0.0
        """Of the session, or of the one that the latest connection will give."""
        self._latest: ref[_Upstream] | None = None
        """The last connection whose handshake was a full one, until its session was fetched."""

    async def encrypt(self, transport: Transport, deadlines: Deadlines, deadline: float) -> TlsTransport:
        """Shakes hands over a connection that stands.

        Args:
            transport: belongs to what is returned, and is closed if nothing is.
            deadlines: the worker's sweeper.
            deadline: an instant of trio's clock.

        Raises:
            TlsFailed: there is no TLS connection.
        """
        try:
            tls = _Upstream(
                self, transport, self._context, server_name=self.server_name, session=self._find_session()
            )
        except ValueError:
            transport.close()
            raise TlsFailed("certificate_rejected", "no certificate can be for the name") from None
        try:
            facts = await tls.handshake(deadlines, deadline)
        except BaseException:
            self.forget()
            tls.close()
            raise
        if not facts.resumed:
            self._session, self._latest = None, ref(tls)
            self._expires_at = trio.current_time() + MAX_SESSION_AGE
        return tls

    def _find_session(self) -> ssl.SSLSession | None:
        """The session that a new connection is to resume."""
        if trio.current_time() >= self._expires_at:
            self.forget()
        elif self._latest is not None and (latest := self._latest()) is not None:
            self.fetch(latest)
        return self._session

    def fetch(self, tls: _Upstream) -> None:
        """Keeps the session of a connection, if it is the one whose session is wanted and has one by now."""
        if self._latest is None or self._latest() is not tls:
            return
        session = tls.session
        if session is not None and (session.has_ticket or session.id):
            self._session, self._latest = session, None

    def forget(self) -> None:
        """The next connection begins from nothing."""
        self._session = self._latest = None


class _Upstream(TlsTransport):
    """A connection to a backend, which leaves its session to those that follow."""

    __slots__ = ("__weakref__", "_way")

    def __init__(
        self,
        way: Way,
        inner: Transport,
        context: ssl.SSLContext,
        *,
        server_name: str,
        session: ssl.SSLSession | None,
    ) -> None:
        super().__init__(inner, context, server_name=server_name, session=session)
        self._way = way

    def close(self) -> None:
        """Closes, and leaves its session, which may have come last; see `TlsTransport.close`."""
        super().close()
        if self.alert:
            self._way.forget()
        elif self.tls is not None:
            self._way.fetch(self)


@dataclass(frozen=True, slots=True, eq=False)
class BackendTls:
    """TLS towards one backend.

    Args:
        http: for connections that carry HTTP.
        relay: for those that carry anything.
    """

    http: Way
    relay: Way
