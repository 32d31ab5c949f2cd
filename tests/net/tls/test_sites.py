from __future__ import annotations

import functools
import math
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from lbproc.config.certificates import read_certificate
from lbproc.config.pem import CertificateFile, KeyFile, PemFile
from lbproc.config.tls import BackendTlsConfig, CertificateConfig, TlsConfig
from lbproc.core.tls.hosts import HostTable
from lbproc.errors import ConfigError
from lbproc.net.memory import memory_pair
from lbproc.net.tls.context import client_context, load_key_pair
from lbproc.net.tls.failure import TlsFailed
from lbproc.net.tls.sites import Site, build_sites
from lbproc.net.tls.transport import TlsFacts, TlsTransport
from tests.certificates import Authority, Kind, Pair, now
from tests.net.tls.pairs import authority, localhost
from tests.net.waiting import NEVER_SWEPT, receive_some

NOW = now().timestamp()


@functools.cache
def issue(*names: str, kind: Kind = "ECDSA", days: float = 90) -> Pair:
    return authority().issue(*names, kind=kind, days=days)


@functools.cache
def clients() -> Authority:
    return Authority("clients")


def entry(pair: Pair, **values: Any) -> CertificateConfig:
    facts = read_certificate(pair.chain, "server")
    cert = CertificateFile("web.pem", pair.chain, facts)
    return CertificateConfig.model_construct(cert=cert, key=KeyFile("web.key", pair.key), **values)


def tls(*certificates: CertificateConfig, **values: Any) -> TlsConfig:
    return TlsConfig.model_construct(certificates=certificates, **values)


def build(config: TlsConfig, domains: list[str] | None = None, **arguments: Any) -> HostTable[Site]:
    def enroll(_context: ssl.SSLContext, domain: str) -> None:
        if domains is not None:
            domains.append(domain)

    return build_sites("web", config, enroll, NOW, **arguments)


def client(*, shows: Pair | None = None, **values: Any) -> ssl.SSLContext:
    context = client_context(
        BackendTlsConfig.model_construct(ca=PemFile("ca.pem", authority().pem), **values)
    )
    if shows is not None:
        load_key_pair(context, shows.chain, shows.key)
    return context


async def connect(
    site: Site | None, server_name: str, context: ssl.SSLContext | None = None
) -> tuple[TlsFacts, TlsFacts]:
    """What client and server have agreed on, once both have read something."""
    assert site is not None
    near, far = memory_pair()
    ends = (
        TlsTransport(near, context or client(), server_name=server_name),
        TlsTransport(far, site.context, server_name=server_name),
    )
    failures: list[TlsFailed] = []

    async def run(end: TlsTransport) -> None:
        try:
            await end.handshake(NEVER_SWEPT, math.inf)
        except TlsFailed as failed:
            failures.append(failed)
            end.abort()

    async with trio.open_nursery() as nursery:
        for end in ends:
            nursery.start_soon(run, end)
    for failed in failures:
        if failed.reason not in {"closed", "refused_by_peer"}:
            raise failed
    if failures:
        raise failures[0]
    ends[1].send(b"x")
    await receive_some(ends[0])
    assert ends[0].tls is not None
    assert ends[1].tls is not None
    return ends[0].tls, ends[1].tls


def certificate_of(pair: Pair) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pair.chain.decode())


async def test_each_host_is_shown_its_own_certificate() -> None:
    www, api, wild = issue("www.example.com"), issue("api.example.com"), issue("*.example.com")
    sites = build(tls(entry(www), entry(api), entry(wild)))
    for name, pair in (("www.example.com", www), ("api.example.com", api), ("x.example.com", wild)):
        near, _ = await connect(sites.choose(name), name)
        assert near.peer_certificate == certificate_of(pair)
    default = sites.choose("elsewhere.org")
    assert default is not None
    assert default is sites.choose(None) is sites.choose("www.example.com")


async def test_clients_are_shown_the_kind_of_key_that_they_can_use() -> None:
    new, old = issue("a.example.com"), issue("a.example.com", kind="RSA")
    sites = build(tls(entry(old), entry(new)))
    only_rsa, only_ecdsa = client(), client()
    for context, kind in ((only_rsa, "RSA"), (only_ecdsa, "ECDSA")):
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(f"ECDHE-{kind}-AES128-GCM-SHA256")
    for context, pair in ((only_rsa, old), (only_ecdsa, new)):
        near, _ = await connect(sites.choose("a.example.com"), "a.example.com", context)
        assert near.peer_certificate == certificate_of(pair)


async def test_a_wildcard_fills_in_the_kind_of_key_that_a_host_lacks() -> None:
    exact, wild = issue("a.example.com", kind="RSA"), issue("*.example.com")
    sites = build(tls(entry(exact), entry(wild)))
    near, _ = await connect(sites.choose("a.example.com"), "a.example.com")
    assert near.peer_certificate in {certificate_of(exact), certificate_of(wild)}
    context = client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    near, _ = await connect(sites.choose("a.example.com"), "a.example.com", context)
    assert near.peer_certificate == certificate_of(wild)


async def test_a_certificate_that_is_out_of_date_is_shown_only_where_there_is_no_other() -> None:
    expired, good, lonely = issue("a.test", days=-1), issue("a.test"), issue("b.test", days=-1)
    sites = build(tls(entry(expired), entry(good), entry(lonely)))
    near, _ = await connect(sites.choose("a.test"), "a.test")
    assert near.peer_certificate == certificate_of(good)
    with pytest.raises(TlsFailed, match="certificate has expired"):
        await connect(sites.choose("b.test"), "b.test")


def test_the_rules_of_a_host_are_those_of_its_first_entry_whatever_is_expired() -> None:
    ca = PemFile("clients.pem", clients().pem)
    expired, open_to_all = issue("a.test", days=-1), issue("a.test")
    sites = build(tls(entry(expired, client_ca=ca), entry(open_to_all)))
    site = sites.choose("a.test")
    assert site is not None
    assert site.context.verify_mode is ssl.CERT_REQUIRED


def test_hosts_with_the_same_rules_are_one_domain_and_others_are_not() -> None:
    ca = PemFile("clients.pem", clients().pem)
    other = PemFile("others.pem", Authority("others").pem)
    enrolled: list[str] = []
    sites = build(
        tls(
            entry(issue("a.test")),
            entry(issue("b.test"), client_ca=ca),
            entry(issue("c.test"), client_ca=replace(ca, path="copy.pem")),
            entry(issue("d.test"), client_ca=ca, client_auth="optional"),
            entry(issue("e.test"), client_ca=other),
        ),
        enrolled,
    )
    domains = [site.domain for name in "abcde" if (site := sites.find(f"{name}.test"))]
    assert domains[0] == ""
    assert domains[1] == domains[2]
    assert len(set(domains)) == 4
    assert sorted(enrolled) == sorted(f"web\0{domain}" for domain in domains)


def test_strict_listeners_have_no_default() -> None:
    sites = build(tls(entry(issue("a.test")), strict_sni=True))
    assert sites.choose("b.test") is None
    assert sites.choose(None) is None


def test_the_first_certificate_may_have_no_name() -> None:
    sites = build(tls(entry(issue()), entry(issue("a.test"))))
    assert sites.default is not sites.find("a.test")


def test_without_tickets_there_are_none() -> None:
    enrolled: list[str] = []
    sites = build(tls(entry(localhost()), tickets=False), enrolled)
    assert enrolled == []
    assert sites.default is not None
    assert sites.default.context.options & ssl.OP_NO_TICKET
    assert sites.default.context.num_tickets == 0


# Clients that show who they are


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_is_let_in_by_what_it_shows(version: ssl.TLSVersion) -> None:
    ca = PemFile("clients.pem", clients().pem)
    good = clients().issue("alice", purpose="client")
    expired = clients().issue("alice", purpose="client", days=-1)
    of_nobody = Authority("nobody").issue("alice", purpose="client")
    server = clients().issue("alice", purpose="server")
    required = build(tls(entry(localhost()), client_ca=ca)).default
    optional = build(tls(entry(localhost()), client_ca=ca, client_auth="optional")).default

    def showing(pair: Pair | None) -> ssl.SSLContext:
        context = client(shows=pair)
        context.maximum_version = version
        return context

    for site in (required, optional):
        _, far = await connect(site, "localhost", showing(good))
        assert far.peer_certificate == certificate_of(good)
        for bad, detail in (
            (expired, "certificate has expired"),
            (of_nobody, "unable to get (local )?issuer certificate|self.signed"),
            (server, "unsuitable certificate purpose|unsupported certificate purpose"),
        ):
            with pytest.raises(TlsFailed, match=f"certificate_rejected: ({detail})"):
                await connect(site, "localhost", showing(bad))
    _, far = await connect(optional, "localhost", showing(None))
    assert far.peer_certificate is None
    with pytest.raises(TlsFailed, match="certificate_missing"):
        await connect(required, "localhost", showing(None))


# What all contexts have in common


def test_contexts_offer_what_is_recommended_today(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    default = build(tls(entry(localhost()))).default
    assert default is not None
    for context in (default.context, client()):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        assert context.options & ssl.OP_NO_RENEGOTIATION
        assert context.options & ssl.OP_NO_COMPRESSION
        assert context.keylog_filename is None
    assert not default.context.options & ssl.OP_CIPHER_SERVER_PREFERENCE
    names = [cipher["name"] for cipher in default.context.get_ciphers()]
    assert all(name.startswith(("TLS_", "ECDHE-")) for name in names)
    assert not any("CBC" in name or name.endswith("-SHA") for name in names)


async def test_the_oldest_version_is_what_was_asked_for() -> None:
    site = build(tls(entry(localhost()), min_version="1.3")).default
    old = client()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(TlsFailed, match="version"):
        await connect(site, "localhost", old)


@pytest.mark.parametrize(("alpn", "agreed"), [(("http/1.1",), "http/1.1"), ((), None)])
async def test_the_protocol_inside_is_agreed_on(alpn: tuple[str, ...], agreed: str | None) -> None:
    site = build(tls(entry(localhost())), alpn=alpn).default
    near, far = await connect(site, "localhost")
    assert near.alpn == far.alpn == agreed


async def test_backends_need_not_be_verified() -> None:
    lenient = client_context(BackendTlsConfig.model_construct(verify=False))
    near, _ = await connect(build(tls(entry(issue("other.test")))).default, "localhost", lenient)
    assert near.peer_certificate


async def test_backends_are_shown_our_certificate() -> None:
    ca = PemFile("clients.pem", clients().pem)
    own = clients().issue("lbproc", purpose="client")
    facts = read_certificate(own.chain, "client")
    certificate = CertificateConfig.model_construct(
        cert=CertificateFile("own.pem", own.chain, facts), key=KeyFile("own.key", own.key)
    )
    site = build(tls(entry(localhost()), client_ca=ca)).default
    _, far = await connect(site, "localhost", client(certificate=certificate))
    assert far.peer_certificate == certificate_of(own)


def test_systems_authorities_are_trusted_by_default() -> None:
    context = client_context(BackendTlsConfig.model_construct())
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_what_openssl_refuses_is_said_without_a_byte_of_a_key() -> None:
    with pytest.raises(ConfigError) as caught:
        build(tls(entry(replace(localhost(), key=issue("other.test").key))))
    assert str(caught.value) == "web.pem: OpenSSL cannot use it: key values mismatch"


def test_an_encrypted_key_asks_nobody() -> None:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    from tests.certificates import key_pem  # noqa: PLC0415

    key: Any = load_pem_private_key(localhost().key, None)
    with pytest.raises(ssl.SSLError):
        load_key_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), localhost().chain, key_pem(key, b"secret"))


def test_no_memory_file_stays_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    build(tls(entry(localhost())))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
