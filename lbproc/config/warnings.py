"""What of a configuration should be looked at, although it can be used.

Owns these rules. They look at a finished ``Config`` and at the date; each gives the key, what is doubtful,
and what would be right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lbproc.config.certified import DAY, certified, date
from lbproc.config.wording import count, quote, quote_end

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lbproc.config.certified import Certified
    from lbproc.config.model import Config
    from lbproc.config.pem import CertificateFile, KeyFile
    from lbproc.config.wording import KeyPath
    from lbproc.types import Seconds

Doubt = tuple["KeyPath", str, str]
"""A key, what is doubtful about it, and what would be right."""

SOON: Final[Seconds] = 14 * DAY
"""Certificates that are renewed by themselves are renewed earlier than this."""

_READ_BY_OTHERS: Final = 0o077


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
    yield from _hosts_are_in_certificates(config)
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


def _is_signed_well(path: KeyPath, certificate: CertificateFile) -> Iterator[Doubt]:
    """Signatures are none that can be forged."""
    if certificate.facts.is_signed_with_sha1:
        yield (
            (*path, "cert"),
            f"the chain in {quote_end(certificate.path)} has a signature with SHA-1, which clients refuse",
            "have it made again with SHA-256",
        )


def _is_kept_secret(path: KeyPath, key: KeyFile) -> Iterator[Doubt]:
    """Keys are read by their owner alone."""
    if key.mode & _READ_BY_OTHERS:
        yield (
            (*path, "key"),
            f"others may read or write {quote_end(key.path)}: its mode is {key.mode:04o}",
            "take that from them: mode 0600",
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
