"""What the keys of ``[listeners.NAME.tls]`` may be together, and those of ``tls`` towards backends.

Owns these rules; ``crosscheck`` applies them. They look at the merged document and pass over what is wrong in
itself: of a table with a file that cannot be used they say nothing more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter

from lbproc.config.tls import CIPHERS, ClientAuth, TlsConfig
from lbproc.config.wording import dotted, quote, quote_end

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lbproc.config.document import Document
    from lbproc.config.problem import Problem
    from lbproc.config.wording import KeyPath

_TLS: Final = TypeAdapter(TlsConfig)


def tls_rules(document: Document) -> Iterator[Problem]:
    """Applies all of them to every listener with TLS."""
    for name, listener in document.listeners.items():
        table = listener.get("tls")
        if not isinstance(table, dict):
            continue
        path: KeyPath = ("listeners", name, "tls")
        yield from _certificates_are_asked_for(document, path, table)
        if document.passed_through(name) and document.protocol(name) == "tcp":
            yield document.problem(
                (*path, "passthrough"),
                'is not looked at by protocol = "tcp"',
                'leave it out, or write protocol = "tls_passthrough" and routes without tls',
            )
        tls = document.read(_TLS, table)
        if tls is not None:
            yield from _ciphers_are_used(document, path, tls)
            yield from _certificates_are_chosen(document, path, tls)


def authorities_are_looked_at(document: Document, path: KeyPath, table: dict[str, Any]) -> Iterator[Problem]:
    """Authorities are named only where certificates are verified.

    Args:
        document: all of it.
        path: of the table.
        table: that may have a table ``tls`` towards backends.
    """
    tls = table.get("tls")
    if isinstance(tls, dict) and tls.get("verify") is False and "ca" in tls:
        yield document.problem(
            (*path, "tls", "ca"),
            f"is not looked at while {dotted((*path, 'tls', 'verify'))} is false",
            "leave out one of them",
        )


def _certificates_are_asked_for(
    document: Document, path: KeyPath, table: dict[str, Any]
) -> Iterator[Problem]:
    """Whoever must show a certificate can show a good one: there are authorities."""
    certificates = table.get("certificates")
    tables = enumerate(certificates if isinstance(certificates, list) else ())
    entries: list[tuple[KeyPath, object]] = [((*path, "certificates", place), one) for place, one in tables]
    for where, entry in [(path, table), *entries]:
        if (
            isinstance(entry, dict)
            and "client_auth" in entry
            and not {"client_ca"} & (entry.keys() | table.keys())
        ):
            yield document.problem(
                (*where, "client_auth"),
                "asks for certificates, and no authorities are named for them",
                'add client_ca = "tls/clients.pem", or leave it out',
            )


def _ciphers_are_used(document: Document, path: KeyPath, tls: TlsConfig) -> Iterator[Problem]:
    """Ciphers of TLS 1.2 are named where it is spoken."""
    if tls.min_version == "1.3" and tls.ciphers != CIPHERS:
        yield document.problem(
            (*path, "ciphers"),
            'are those of TLS 1.2, which min_version = "1.3" refuses',
            "leave out one of them",
        )


def _certificates_are_chosen(document: Document, path: KeyPath, tls: TlsConfig) -> Iterator[Problem]:
    """Each certificate is chosen for some host, no two for the same one, and who must show what is clear."""
    taken: dict[tuple[str, str], int] = {}
    asked: dict[str, tuple[int, ClientAuth | None]] = {}
    for place, certificate in enumerate(tls.certificates):
        here: KeyPath = (*path, "certificates", place)
        if not certificate.names and (place > 0 or not certificate.cert.facts.addresses):
            yield document.problem(
                (*here, "cert"),
                f"the certificate in {quote_end(certificate.cert.path)} is for no host name",
                "have it made for the names of your hosts (subjectAltName), or name them in hosts",
            )
        kind = certificate.cert.facts.key_kind
        auth = tls.client_auth_for(certificate)
        for name in certificate.names:
            earlier = taken.setdefault((name, kind), place)
            asked_at, other = asked.setdefault(name, (place, auth))
            if earlier != place:
                where = document.at((*path, "certificates", earlier))
                yield document.problem(
                    here,
                    f"is for {quote(name)} with a key of kind {kind}, as is {where}",
                    "leave out one of them, or say in hosts which one is for which host",
                )
                break
            if auth != other:
                where = document.at((*path, "certificates", asked_at))
                yield document.problem(
                    here,
                    f"asks clients of {quote(name)} for another certificate than {where} does",
                    "give both the same client_ca and client_auth",
                )
                break
    for name in tls.passthrough:
        if name in asked:
            yield document.problem(
                (*path, "passthrough", name),
                f"{quote(name)} has a certificate here too: "
                f"{document.at((*path, 'certificates', asked[name][0]))}",
                "leave it out of one of them",
            )
