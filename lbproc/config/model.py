"""The shape of a configuration: tables, keys, defaults, and what each means.

Owns the names of all keys and their defaults; attributes are named as the keys. Everything is immutable.
What one value may look like is in ``values``, ``place``, ``match`` and ``secret``; what several keys may be
together is in ``crosscheck``. ``load_config`` is the way to make a ``Config`` from files;
``Config.model_validate`` makes one from tables without the checks across keys.

Every field has a description, and every required field an example: messages and documentation are made of
them.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from lbproc.config.health import HealthConfig
from lbproc.config.limits import LimitConfig, LimitName
from lbproc.config.match import Alpn, HostPattern, Method, PathCondition, ServerName
from lbproc.config.outlier import OutlierConfig, PanicThreshold, SlowStart
from lbproc.config.place import (
    AccessTarget,
    AdminAddress,
    BindAddress,
    ErrorTarget,
    Network,
    PidPath,
    SocketPath,
    TargetAddress,
)
from lbproc.config.policies import POLICIES, PolicyName
from lbproc.config.retries import RetriesConfig
from lbproc.config.secret import SecretValue
from lbproc.config.table import Table, choice, strings, whole
from lbproc.config.tls import BackendTlsConfig, TlsConfig
from lbproc.config.values import (
    BackendName,
    BodySize,
    DrainTimeout,
    HashKey,
    HeaderSize,
    HeartbeatTimeout,
    RedirectPort,
    RouteName,
    Switch,
    Timeout,
    UserName,
    Workers,
    parse_pool_reference,
)
from lbproc.config.wording import toml_type, wrong

HEADER_SIZE: Final = 32 * 1024
BODY_SIZE: Final = 1024**3
SESSIONS: Final = 10_000
"""Of datagrams, where nothing else is said: each is a socket, and anybody can begin any number."""


class RuntimeConfig(Table):
    """How lbproc runs: processes, the control socket, and the sizes of the shared table."""

    workers: Workers = Field(default="auto", description="worker processes; auto: one per CPU this may use")
    control_socket: SocketPath | None = Field(
        default=None, description="where commands reach a running lbproc"
    )
    drain_timeout: DrainTimeout = Field(
        default=600.0, description="how long `stop` waits for requests and tunnels"
    )
    user: UserName | None = Field(
        default=None, description="account of workers and controller, if started as root"
    )
    heartbeat_timeout: HeartbeatTimeout = Field(
        default=30.0, description="a worker that is silent this long is replaced"
    )
    max_requests: Annotated[int, whole(1, 1_000_000_000_000, 1_000_000)] | None = Field(
        default=None, description="a worker that has served about so many is replaced by a new one"
    )
    pid_file: PidPath | None = Field(
        default=None, description="file with the process id of the supervisor, while lbproc serves"
    )
    max_columns: Annotated[int, whole(8, 256, 256)] = Field(
        default=256, description="processes that fit into the shared table"
    )
    max_backends: Annotated[int, whole(1, 65_536, 4096)] = Field(
        default=4096, description="backends of all pools that fit into the shared table"
    )
    max_keys: Annotated[int, whole(1024, 268_435_456, 1_048_576)] = Field(
        default=1_048_576, description="limited keys that fit into the shared table"
    )


class AdminConfig(Table):
    """The admin listener: ``/healthz`` and ``/metrics``. Without this table there is none."""

    bind: AdminAddress = Field(
        description="address of the admin listener", examples=['bind = "127.0.0.1:9900"']
    )
    token: SecretValue | None = Field(
        default=None, description="bearer token that clients send; needed unless bind is local"
    )


class LogConfig(Table):
    """Where the two logs go."""

    access: AccessTarget = Field(default="stdout", description="the access log: stdout, off or a path")
    format: Annotated[
        Literal["json", "combined"], choice("a format of the access log", "json", "combined")
    ] = Field(default="json", description="json: one object a line; combined: as web servers write it")
    error: ErrorTarget = Field(default="stderr", description="the error log: stderr or a path")
    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        choice("a log level", "info", "debug", "warning", "error"),
    ] = Field(default="info", description="the least important lines of the error log that are written")


class ListenerTimeouts(Table):
    """How long a client may take."""

    header: Timeout = Field(default=10.0, description="first byte of a request to the end of its head")
    body: Timeout = Field(default=30.0, description="between two reads of a request body")
    idle: Timeout = Field(default=75.0, description="between two requests of a connection")
    write: Timeout = Field(default=30.0, description="while the client takes no byte of a response")
    tunnel: Timeout = Field(default=3600.0, description="while no byte passes either way in a tunnel")


class MatchConfig(Table):
    """The conditions of a route. All that are given must hold, one value of each; without any: everything."""

    host: Annotated[tuple[HostPattern, ...], strings("api.example.com")] = Field(
        default=(), description='hosts, without port; "*.example.com" is every name below example.com'
    )
    path: Annotated[tuple[PathCondition, ...], strings("/v1")] = Field(default=(), description="whole paths")
    path_prefix: Annotated[tuple[PathCondition, ...], strings("/v1")] = Field(
        default=(), description='beginnings of paths, by whole segments: "/v1" is /v1 and /v1/x, not /v10'
    )
    method: Annotated[tuple[Method, ...], strings("GET")] = Field(
        default=(), description="methods, in upper case"
    )
    sni: Annotated[tuple[ServerName, ...], strings("db.example.com")] = Field(
        default=(), description='tls_passthrough: hosts that clients name; "*." as in host'
    )
    alpn: Annotated[tuple[Alpn, ...], strings("h2")] = Field(
        default=(), description="tls_passthrough: protocols of which the client offers one"
    )


class RouteConfig(Table):
    """Which requests of a listener go to which pool. The first route that matches wins."""

    name: RouteName = Field(
        default="", description="name in logs, unique in the listener; default: its place from 0"
    )
    match: MatchConfig = Field(default_factory=MatchConfig, description="the requests that take this route")
    pool: Annotated[str, BeforeValidator(parse_pool_reference)] = Field(
        description="the pool these requests go to", examples=['pool = "web"']
    )


def _as_routes(value: object) -> object:
    """The list of a listener's routes."""
    if not isinstance(value, list | tuple):
        raise wrong(f"is {toml_type(value)}, not a list of routes", "begin each route with double brackets")
    return tuple(value)


class ListenerConfig(Table):
    """Addresses that clients connect to, and where their requests go."""

    bind: Annotated[tuple[BindAddress, ...], strings("0.0.0.0:8080")] = Field(
        description="addresses to listen on: IP:PORT, [IPv6]:PORT or unix:PATH",
        examples=['bind = "0.0.0.0:8080"'],
    )
    protocol: Annotated[
        Literal["http", "tcp", "udp", "tls_passthrough"],
        choice("a protocol", "http", "tcp", "udp", "tls_passthrough"),
    ] = Field(default="http", description="what clients speak: http, tcp, udp, tls_passthrough")
    pool: Annotated[str, BeforeValidator(parse_pool_reference)] | None = Field(
        default=None, description="where requests go that take no route; without it they get 404"
    )
    trusted_proxies: Annotated[tuple[Network, ...], strings("10.0.0.0/8", least=0)] = Field(
        default=(), description="networks whose forwarding headers and PROXY header are believed"
    )
    proxy_protocol: Switch = Field(
        default=False, description="whether trusted_proxies begin connections with a PROXY header"
    )
    tls: TlsConfig | None = Field(default=None, description="absent: clients speak in clear")
    redirect_https: RedirectPort | None = Field(
        default=None, description="true or a port: every request is sent to the same URL with https"
    )
    limits: Annotated[tuple[LimitName, ...], strings("per_ip", least=0)] = Field(
        default=(), description="names of limits that hold here"
    )
    max_connections: Annotated[int, whole(1, 10_000_000, 50_000)] | None = Field(
        default=None, description="the most client connections over all workers; udp: sessions, else 10000"
    )
    max_header_size: HeaderSize = Field(default=HEADER_SIZE, description="the largest head of a request")
    max_header_count: Annotated[int, whole(1, 10_000, 100)] = Field(
        default=100, description="the most header lines of a request"
    )
    max_body_size: BodySize = Field(default=BODY_SIZE, description="the largest body of a request")
    underscore_headers: Annotated[
        Literal["drop", "forward", "reject"],
        choice("a way to treat header names with underscores", "drop", "forward", "reject"),
    ] = Field(default="drop", description="what becomes of header names with underscores")
    timeouts: ListenerTimeouts = Field(
        default_factory=ListenerTimeouts, description="how long a client may take"
    )
    routes: Annotated[tuple[RouteConfig, ...], BeforeValidator(_as_routes)] = Field(
        default=(), description="which requests go elsewhere than to `pool`"
    )

    @property
    def most_connections(self) -> int | None:
        """The most client connections that hold without ``max_connections``, too; None: any number."""
        if self.max_connections is None and self.protocol == "udp":
            return SESSIONS
        return self.max_connections

    @field_validator("routes", mode="after")
    @classmethod
    def _named(cls, value: tuple[RouteConfig, ...]) -> tuple[RouteConfig, ...]:
        """Gives every route without a name its place as its name."""
        return tuple(
            route if route.name else route.model_copy(update={"name": str(place)})
            for place, route in enumerate(value)
        )


class BackendConfig(Table):
    """One server of a pool."""

    address: TargetAddress = Field(
        description="host:port, [IPv6]:port or unix:PATH", examples=['address = "10.0.0.1:8000"']
    )
    name: BackendName = Field(
        default_factory=lambda fields: str(fields.get("address", "")),
        description="name in logs and commands, unique in the pool; default: its address",
    )
    weight: Annotated[int, whole(0, 1000, 2)] = Field(
        default=1, description="share of the traffic; 0: none while another has more"
    )
    max_connections: Annotated[int, whole(1, 1_000_000, 100)] | None = Field(
        default=None, description="the most requests in flight to it, over all workers"
    )
    backup: Switch = Field(default=False, description="used only while no other backend is left")

    @model_validator(mode="before")
    @classmethod
    def _from_address(cls, value: object) -> object:
        """An address alone stands for a backend with that address."""
        if isinstance(value, str):
            return {"address": value}
        if not isinstance(value, dict):
            raise wrong(
                f"is {toml_type(value)}, not a backend",
                'write an address such as "10.0.0.1:8000" or { address = "10.0.0.1:8000", weight = 2 }',
            )
        return value


class PoolTimeouts(Table):
    """How long a backend may take."""

    connect: Timeout = Field(default=2.0, description="until the connection stands")
    response: Timeout = Field(default=60.0, description="end of the request to the end of the response head")
    read: Timeout = Field(default=60.0, description="between two reads of a response body")


def _as_backends(value: object) -> object:
    """The list of a pool's backends."""
    if not isinstance(value, list | tuple):
        raise wrong(
            f"is {toml_type(value)}, not a list of backends", 'write a list such as ["10.0.0.1:8000"]'
        )
    if not value:
        raise wrong("is an empty list", 'write at least one backend, such as ["10.0.0.1:8000"]')
    return tuple(value)


class PoolConfig(Table):
    """Backends that serve the same, and how they are chosen."""

    policy: Annotated[PolicyName, choice("a policy", *POLICIES)] = Field(
        default=POLICIES[0], description="how a backend is chosen"
    )
    hash_key: HashKey = Field(default="client_ip", description="what the policy consistent_hash looks at")
    backends: Annotated[tuple[BackendConfig, ...], BeforeValidator(_as_backends)] = Field(
        description="addresses, or tables with more about a backend",
        examples=['backends = ["10.0.0.1:8000"]'],
    )
    slow_start: SlowStart = Field(
        default=0.0, description="time in which a backend that starts gets up to its weight; 0s: at once"
    )
    panic_threshold: PanicThreshold = Field(
        default=0.0, description="share of available backends below which all are used; 0: never"
    )
    retries: RetriesConfig | None = Field(
        default=None, description="which failures are tried again on another backend; absent: none"
    )
    on_down: Annotated[
        Literal["keep", "cut"], choice("a way to treat what a backend has under way", "keep", "cut")
    ] = Field(
        default="keep",
        description="requests and tunnels of a backend that goes down or into maintenance: keep or cut",
    )
    timeouts: PoolTimeouts = Field(default_factory=PoolTimeouts, description="how long a backend may take")
    tls: BackendTlsConfig | None = Field(
        default=None, description="present: TLS to the backends; absent: in clear"
    )
    proxy_protocol: (
        Annotated[Literal["v1", "v2"], choice("a version of the PROXY protocol", "v2", "v1")] | None
    ) = Field(default=None, description="v1 or v2: backends get a PROXY header; absent: none")
    health: HealthConfig | None = Field(
        default=None, description="active checks; absent: none, and all backends are up"
    )
    outlier: OutlierConfig | None = Field(
        default=None, description="passive checks; absent: none, and no backend is ejected"
    )


class Config(Table):
    """Everything the operator asked for."""

    runtime: RuntimeConfig = Field(default_factory=RuntimeConfig, description="how lbproc runs")
    admin: AdminConfig | None = Field(default=None, description="the admin listener; absent: none")
    log: LogConfig = Field(default_factory=LogConfig, description="where the logs go")
    listeners: dict[str, ListenerConfig] = Field(
        description="by name: where clients connect", examples=['[listeners.web] with bind = "0.0.0.0:8080"']
    )
    pools: dict[str, PoolConfig] = Field(default_factory=dict, description="by name: where requests go")
    limits: dict[str, LimitConfig] = Field(default_factory=dict, description="by name: how much is let in")
