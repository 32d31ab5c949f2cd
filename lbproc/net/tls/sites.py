"""Which certificate, and which rules for clients, each host of a listener gets.

Owns the choice among certificates, and the domains that keep apart what clients have shown of themselves. How
a context is made is `lbproc.net.tls.context`'s; which host a client wants, the ClientHello's. Building takes
milliseconds for each context, so it is not done on the loop.

Invariants:
    - The rules for clients of a host are those of the first entry that names it, whatever is expired: no
      certificate joins another one's context unless their rules are the same.
    - Hosts with different rules are of different domains, whose ticket keys are different, and so are those
      of listeners: what a client has shown to one is worth nothing at another.
    - The name of a domain follows from these rules and nothing else: it is the same in every worker and after
      every reload.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lbproc.core.tls.hosts import HostTable
from lbproc.net.tls.context import HTTP_ALPN, server_context

if TYPE_CHECKING:
    from lbproc.config.tls import CertificateConfig, ClientAuth, TlsConfig

Enroll = Callable[[ssl.SSLContext, str], None]
"""Gives a context the ticket keys of a domain."""


@dataclass(frozen=True, slots=True)
class Site:
    """What a handshake for a host is made with.

    Args:
        context: with the certificates of the host, one for each kind of key.
        domain: what clients have to show of themselves; the same for hosts with the same rules, and empty
            for those without any.
    """

    context: ssl.SSLContext
    domain: str


def auth_domain(client_auth: ClientAuth | None) -> str:
    """A name for what clients have to show of themselves; empty when that is nothing."""
    if client_auth is None:
        return ""
    fingerprint = hashlib.sha256(client_auth.ca.content).hexdigest()
    return f"{'required' if client_auth.is_required else 'optional'} {fingerprint}"


def build_sites(
    listener: str, config: TlsConfig, enroll: Enroll, now: float, alpn: Sequence[str] = HTTP_ALPN
) -> HostTable[Site]:
    """The hosts of a listener.

    Args:
        listener: its name.
        config: of its TLS.
        enroll: gives contexts their ticket keys.
        now: seconds since 1970: expired certificates are shown only where there is no other.
        alpn: the protocols that are spoken inside.

    Raises:
        ConfigError: OpenSSL refuses something.
    """
    return _Sites(listener, config, enroll, now, alpn).build()


class _Sites:
    """The sites under construction. The same certificates under the same rules are one site."""

    def __init__(
        self, listener: str, config: TlsConfig, enroll: Enroll, now: float, alpn: Sequence[str]
    ) -> None:
        self._listener = listener
        self._config = config
        self._enroll = enroll
        self._now = now
        self._alpn = alpn
        self._made: dict[tuple[str, ...], Site] = {}

    def build(self) -> HostTable[Site]:
        first = self._config.certificates[0]
        hosts = dict.fromkeys(name for entry in self._config.certificates for name in entry.names)
        default = None
        if not self._config.strict_sni:
            default = self._site(self._entries_of(first.names[0]) if first.names else [first])
        return HostTable([(host, self._site(self._entries_of(host))) for host in hosts], default)

    def _entries_of(self, host: str) -> list[CertificateConfig]:
        """Who has a certificate for a host: those that name it, then those that do by a wildcard."""
        wildcard = f"*.{host.partition('.')[2]}"
        entries = self._config.certificates
        found = [entry for entry in entries if host in entry.names]
        found += [entry for entry in entries if wildcard in entry.names and host not in entry.names]
        return found

    def _site(self, entries: Sequence[CertificateConfig]) -> Site:
        """The best certificate of each kind of key, under the rules of the first entry."""
        client_auth = self._config.client_auth_for(entries[0])
        domain = auth_domain(client_auth)
        best: dict[str, CertificateConfig] = {}
        for entry in sorted(entries, key=self._is_out_of_date):  # a stable sort: else the order is theirs
            if auth_domain(self._config.client_auth_for(entry)) == domain:
                best.setdefault(entry.cert.facts.key_kind, entry)
        key = (domain, *(entry.cert.facts.fingerprint for entry in best.values()))
        if key not in self._made:
            context = server_context(self._config, best.values(), client_auth, self._alpn)
            if self._config.tickets:
                self._enroll(context, f"{self._listener}\0{domain}")
            self._made[key] = Site(context, domain)
        return self._made[key]

    def _is_out_of_date(self, entry: CertificateConfig) -> bool:
        facts = entry.cert.facts
        return not facts.not_before <= self._now <= facts.not_after
