"""From the configuration and the published membership to what is probed, how, and how often.

Owns the meaning of the keys of ``[pools.NAME.health]`` for one backend. Nothing here waits or sends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from lbproc import __version__
from lbproc.config.health import CheckTlsConfig, HealthConfig
from lbproc.config.model import Config, PoolConfig
from lbproc.config.secret import Secret
from lbproc.config.tls import BackendTlsConfig
from lbproc.core.health import Cadence, Subject
from lbproc.core.proxy_protocol import ProxyHeader, render_v1, render_v2
from lbproc.health.probe import Probe
from lbproc.health.questions import ByteQuestion, DatagramQuestion, HttpQuestion, Question
from lbproc.health.wire import Encryption
from lbproc.net.tls.context import HTTP_ALPN
from lbproc.net.tls.upstream import NO_ALPN, ClientContexts, server_name_of
from lbproc.types import Address, Row, TcpAddress, UnixAddress, parse_address


class Member(NamedTuple):
    """A backend as it is published.

    Attributes:
        address: as configured; it names the backend together with its pool.
        resolved: what it stands for, best first.
    """

    pool: str
    name: str
    address: str
    row: Row
    resolved: tuple[str, ...]


class Key(NamedTuple):
    """What names a check, over reloads too."""

    pool: str
    address: str
    subject: Subject


@dataclass(frozen=True, slots=True)
class Target:
    """A check that is asked for."""

    member: Member
    probe: Probe
    cadence: Cadence


def read_members(published: Mapping[str, Any]) -> list[Member]:
    """The backends in the ``pools`` of a published membership."""
    return [
        Member(pool, backend[0], backend[1], Row(backend[5]), tuple(backend[6]))
        for pool, table in published.items()
        for backend in table["backends"]
    ]


def targets(config: Config, members: Iterable[Member], contexts: ClientContexts) -> dict[Key, Target]:
    """Everything that is to be checked."""
    asked: dict[Key, Target] = {}
    for member in members:
        pool = config.pools.get(member.pool)
        if pool is None or pool.health is None:
            continue
        health = pool.health
        cadence = Cadence(
            health.interval,
            health.timeout,
            health.doubt_interval,
            health.down_interval,
            health.rise,
            health.fall,
        )
        for subject in Subject:
            is_datagram = health.check == "udp"
            greeting = _greeting(pool)
            question = _question(health, member, subject, greeting)
            if question is not None:
                probe = Probe(
                    _addresses(health, member),
                    question,
                    _encryption(pool, health, member, contexts),
                    health.timeout,
                    b"" if is_datagram else greeting,
                    is_datagram=is_datagram,
                )
                asked[Key(member.pool, member.address, subject)] = Target(member, probe, cadence)
    return asked


def _question(health: HealthConfig, member: Member, subject: Subject, greeting: bytes) -> Question | None:
    body = (health.expect.body or "").encode()
    if subject is Subject.READINESS and health.check == "udp":
        return DatagramQuestion(greeting + (health.send or "").encode(), body, health.timeout / 2)
    if subject is Subject.READINESS and health.check != "http":
        return ByteQuestion((health.send or "").encode(), body)
    path = health.path if subject is Subject.READINESS else health.liveness_path
    if health.check != "http" or path is None:
        return None
    given = {name.lower() for name in health.headers}
    headers = [("Host", health.host or _authority(member))]
    headers += [(name, _revealed(value)) for name, value in health.headers.items()]
    if "user-agent" not in given:
        headers.append(("User-Agent", f"lbproc/{__version__} (health check)"))
    if health.method in {"POST", "PUT", "PATCH"}:
        headers.append(("Content-Length", "0"))
    headers.append(("Connection", "close"))
    wanted = body if subject is Subject.READINESS else b""
    return HttpQuestion(
        health.method,
        path,
        tuple(headers),
        health.expect.status,
        wanted,
        is_secret=any(isinstance(value, Secret) for value in health.headers.values()),
    )


def _revealed(value: str | Secret) -> str:
    return value if isinstance(value, str) else value.reveal()


def _authority(member: Member) -> str:
    """What stands in the Host field by default; a Unix socket has no name."""
    return "localhost" if member.address.startswith("unix:") else member.address


def _addresses(health: HealthConfig, member: Member) -> tuple[Address, ...]:
    if health.address is not None:
        return (health.address,)
    found = [parse_address(text) for text in member.resolved]
    if health.port is None:
        return tuple(found)
    return tuple(
        TcpAddress(address.host, health.port) if isinstance(address, TcpAddress) else address
        for address in found
    )


def _greeting(pool: PoolConfig) -> bytes:
    """The PROXY header of a connection that is nobody's but ours.

    None where checks have a port or an address of their own: another service listens there.
    """
    health, version = pool.health, pool.proxy_protocol
    if version is None or health is None or health.port is not None or health.address is not None:
        return b""
    return render_v1(None, None) if version == "v1" else render_v2(ProxyHeader(None, None))


def _encryption(
    pool: PoolConfig, health: HealthConfig, member: Member, contexts: ClientContexts
) -> Encryption | None:
    """How a check speaks TLS: by a table of its own, else as requests do where it is made where they go."""
    if health.check in {"tcp", "udp"}:
        return None
    alpn = HTTP_ALPN if health.check == "http" else NO_ALPN
    is_elsewhere = health.port is not None or health.address is not None
    if health.tls is None and pool.tls is not None and not is_elsewhere:
        name = server_name_of(pool.tls.server_name, parse_address(member.address))
        return Encryption(contexts.find(pool.tls, alpn), name)
    if health.check == "http" and health.tls is None:
        return None
    own = health.tls or CheckTlsConfig()
    tls = BackendTlsConfig.model_construct(verify=own.verify, ca=own.ca)
    return Encryption(contexts.find(tls, alpn), own.server_name or _server_name(health, member))


def _server_name(health: HealthConfig, member: Member) -> str:
    """The host that is asked for, else the host of the backend's address."""
    if health.host is not None:
        return _host_of(health.host)
    address = parse_address(member.address)
    return "localhost" if isinstance(address, UnixAddress) else address.host.partition("%")[0]


def _host_of(authority: str) -> str:
    """A Host field without its port."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    return authority.partition(":")[0]
