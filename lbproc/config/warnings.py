"""What of a configuration should be looked at, although it can be used.

Owns these rules. They look at a finished ``Config`` and at the date; each gives the key, what is doubtful,
and what would be right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lbproc.config.certified import SOON, certified, date
from lbproc.config.tls import CIPHERS, openssl_cipher
from lbproc.config.wording import count, quote, quote_end

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lbproc.config.certified import Certified
    from lbproc.config.model import Config
    from lbproc.config.pem import CertificateFile, KeyFile, PemFile
    from lbproc.config.tls import CertificateConfig, TlsConfig
    from lbproc.config.wording import KeyPath
    from lbproc.types import Seconds

Doubt = tuple["KeyPath", str, str]
"""A key, what is doubtful about it, and what would be right."""

_READ_BY_OTHERS: Final = 0o027
"""A group may read: distributions give keys to a group of their own (``root:ssl-cert``, 0640)."""

_FORWARD_SECRET: Final = {"kx-ecdhe", "kx-dhe"}
"""Ways to agree on keys, in the words of OpenSSL."""


def warnings(config: Config, now: Seconds) -> Iterator[Doubt]:
    """All of them.

    Args:
        config: that can be used.
        now: the date, as seconds since 1970.
    """
    for one in certified(config):
        yield from _is_valid(one, now)
        yield from _is_signed_well(one.path, one.cert)
        yield from _is_kept_secret(one.path, one.key)
    yield from _authorities_are_valid(config, now)
    yield from _hosts_are_in_certificates(config)
    yield from _ciphers_are_recommended(config)
    yield from _checks_ask_what_is_served(config)
    yield from _limits_are_used(config)


def _is_valid(one: Certified, now: Seconds) -> Iterator[Doubt]:
    """Certificates are valid today and for a while."""
    path, certificate, facts = one.path, one.cert, one.cert.facts
    right = "renew it, and reload"
    if now > facts.not_after:
        what = f"the certificate in {quote_end(certificate.path)} expired on {date(facts.not_after)}"
    elif now < facts.not_before:
        what = (
            f"the certificate in {quote_end(certificate.path)} is valid from {date(facts.not_before)} on only"
        )
        right = "set the clock of this machine right, or wait"
    elif facts.not_after - now <= SOON:
        days = count(one.days_left(now), "day")
        what = (
            f"the certificate in {quote_end(certificate.path)} expires in {days}, on {date(facts.not_after)}"
        )
    elif facts.chain_not_after - now <= SOON:
        verb = "expired" if now > facts.chain_not_after else "expires"
        when = date(facts.chain_not_after)
        what = f"a certificate of the chain in {quote_end(certificate.path)} {verb} on {when}"
        right = "renew the chain, and reload"
    else:
        return
    yield (*path, "cert"), what, right


def _authorities_are_valid(config: Config, now: Seconds) -> Iterator[Doubt]:
    """Something can be signed by who is trusted."""
    for path, authorities in _authorities(config):
        from lbproc.config.certificates import last_root_ends  # noqa: PLC0415  only where it is needed

        end = last_root_ends(authorities.content)
        if now > end:
            yield (
                path,
                f"the authorities in {quote_end(authorities.path)} expired on {date(end)}: nobody is trusted",
                "name a file with valid ones",
            )


def _authorities(config: Config) -> Iterator[tuple[KeyPath, PemFile]]:
    """All files of authorities that are trusted, with their keys."""
    for name, listener in config.listeners.items():
        if listener.tls is not None:
            tables: list[tuple[KeyPath, TlsConfig | CertificateConfig]] = [(("tls",), listener.tls)]
            tables += [
                (("tls", "certificates", place), pair) for place, pair in enumerate(listener.tls.certificates)
            ]
            for path, table in tables:
                if table.client_ca is not None:
                    yield ("listeners", name, *path, "client_ca"), table.client_ca
    for name, pool in config.pools.items():
        if pool.tls is not None and pool.tls.ca is not None:
            yield ("pools", name, "tls", "ca"), pool.tls.ca
        if pool.health is not None and pool.health.tls is not None and pool.health.tls.ca is not None:
            yield ("pools", name, "health", "tls", "ca"), pool.health.tls.ca


def _is_signed_well(path: KeyPath, certificate: CertificateFile) -> Iterator[Doubt]:
    """Signatures are none that can be forged."""
    if certificate.facts.is_signed_with_sha1:
        yield (
            (*path, "cert"),
            f"the chain in {quote_end(certificate.path)} has a signature with SHA-1, which clients refuse",
            "have it made again with SHA-256",
        )


def _is_kept_secret(path: KeyPath, key: KeyFile) -> Iterator[Doubt]:
    """Keys are read by their owner, and at most a group."""
    if key.mode & _READ_BY_OTHERS:
        yield (
            (*path, "key"),
            f"others may read or write {quote_end(key.path)}: its mode is {key.mode:04o}",
            "take that from them: mode 0600, or 0640 with a group for keys",
        )


def _hosts_are_in_certificates(config: Config) -> Iterator[Doubt]:
    """Clients find the host that they asked for in the certificate that they get."""
    for name, listener in config.listeners.items():
        for place, pair in enumerate(listener.tls.certificates if listener.tls else ()):
            for host in pair.hosts:
                known = pair.cert.facts.names
                if host not in known and f"*.{host.partition('.')[2]}" not in known:
                    yield (
                        ("listeners", name, "tls", "certificates", place, "hosts"),
                        f"{quote(host)} is no name of {quote_end(pair.cert.path)}, which clients will refuse",
                        "leave it out, or have the certificate made for it",
                    )


def _ciphers_are_recommended(config: Config) -> Iterator[Doubt]:
    """What is recorded today cannot be read by whoever gets the key later, nor be changed on the way."""
    for name, listener in config.listeners.items():
        for place, cipher in enumerate(listener.tls.ciphers if listener.tls else ()):
            known = None if cipher in CIPHERS else openssl_cipher(cipher)
            lacks = [
                word
                for word, has in (
                    ("forward secrecy", known is None or known["kea"] in _FORWARD_SECRET),
                    ("authenticated encryption", known is None or known["aead"]),
                )
                if not has
            ]
            if lacks:
                yield (
                    ("listeners", name, "tls", "ciphers", place),
                    f"{quote(cipher)} has no {' and no '.join(lacks)}",
                    "leave it out unless old clients of yours need it",
                )


def _checks_ask_what_is_served(config: Config) -> Iterator[Doubt]:
    """Backends of datagrams are asked by datagrams, and others are not, unless a place of its own is."""
    protocols: dict[str, set[str]] = {}
    for listener in config.listeners.values():
        for pool in {listener.pool, *(route.pool for route in listener.routes)} - {None}:
            protocols.setdefault(str(pool), set()).add(listener.protocol)
    for name, pool_config in config.pools.items():
        health, brought = pool_config.health, protocols.get(name, set())
        if health is None or health.port is not None or health.address is not None or not brought:
            continue
        if health.check == "udp" and "udp" not in brought:
            what, right = "asks by UDP, which no listener brings to this pool", 'write "http", "tcp" or "tls"'
        elif health.check in {"http", "tls"} and brought == {"udp"}:
            what = f"asks by {health.check.upper()} where requests come by UDP"
            right = 'write check = "udp", or the port where that is answered'
        else:
            continue
        yield ("pools", name, "health", "check"), what, right


def _limits_are_used(config: Config) -> Iterator[Doubt]:
    """Limits hold somewhere."""
    used = {name for listener in config.listeners.values() for name in listener.limits}
    for name in config.limits:
        if name not in used:
            yield (
                ("limits", name),
                "is not in the limits of any listener",
                f"add limits = [{quote(name)}] to a listener, or leave it out",
            )
