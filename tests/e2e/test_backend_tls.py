"""TLS towards backends under a real supervisor: whom it trusts, what it keeps, and a real nginx."""

from __future__ import annotations

from hashlib import sha256
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from tests.certificates import Authority, self_signed
from tests.e2e.harness import wait_until
from tests.e2e.harness_client import RawClient, fetch
from tests.e2e.harness_nginx import Nginx
from tests.e2e.harness_secure_backend import Secure, babble, stall
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import RequireProgram
    from tests.e2e.conftest import StartLbproc
    from tests.e2e.harness import LbprocServer, Program
    from tests.e2e.harness_backend import Stage
    from tests.e2e.harness_wire import Message

pytestmark = pytest.mark.slow

IP = "127.0.0.1"
LARGE = Random(5).randbytes(10_000_000)


def pool(name: str, address: str, tls: str, more: str = "") -> str:
    return f'[pools.{name}]\nbackends = ["{address}"]\ntls = {{ {tls} }}\n{more}\n'


def listener(address: str, pools: list[str]) -> str:
    """``/NAME`` goes to the pool of that name."""
    routes = "".join(
        f'[[listeners.web.routes]]\nmatch = {{ path_prefix = "/{name}" }}\npool = "{name}"\n'
        for name in pools
    )
    return f'[listeners.web]\nbind = "{address}"\n{routes}'


def refusal(answer: Message) -> tuple[int, str, str]:
    """Status, error and details of an answer of lbproc's own."""
    said = answer.get("Proxy-Status") or ""
    error, _, details = said.removeprefix("lbproc; error=").partition("; details=")
    return answer.status, error, details.strip('"')


class Service:
    """lbproc in front of backends of all kinds, each with a pool of its name."""

    def __init__(self, stage: Stage, start: StartLbproc, directory: Path) -> None:
        self.directory = directory
        self.address, self.relay = (f"{IP}:{free_port()}" for _ in range(2))
        self.authority, self.other = Authority("backends"), Authority("other")
        self.ca = self.authority.write(directory, "ca")
        good, alone = self.authority.issue(IP), self_signed(IP)
        (directory / "alone.pem").write_bytes(alone.chain)
        own = self.authority.issue("lbproc.test", purpose="client").toml(directory, "own")
        self.scripts: dict[str, Any] = {
            "good": Secure(good),
            "old": Secure(good, version="1.2"),
            "new": Secure(good, version="1.3"),
            "named": Secure(self.authority.issue("app.test")),
            "alone": Secure(alone),
            "checked": Secure(good, clients=self.authority),
            "misnamed": Secure(self.authority.issue("app.test", "10.9.8.7")),
            "untrusted": Secure(self.other.issue(IP)),
            "expired": Secure(self.authority.issue(IP, days=-1)),
            "lonely": Secure(self_signed(IP)),
            "closed_old": Secure(good, version="1.2", clients=self.authority),
            "closed_new": Secure(good, version="1.3", clients=self.authority),
            "outdated": Secure(good, version="1.2"),
            "stalling": stall,
            "babbling": babble,
        }
        self.addresses = {name: stage.open(name, script).address for name, script in self.scripts.items()}
        ca = f'ca = "{self.ca}"'
        tables = {
            "named": f'{ca}, server_name = "app.test"',
            "alone": f'ca = "{directory / "alone.pem"}"',
            "checked": f"{ca}, certificate = {own}",
            "outdated": f'{ca}, min_version = "1.3"',
        }
        more = {
            "stalling": 'timeouts = { connect = "300ms" }',
            "checked": 'health = { interval = "100ms", rise = 1 }',
        }
        names = list(self.addresses)
        pools = "".join(
            pool(name, self.addresses[name], tables.get(name, ca), more.get(name, "")) for name in names
        )
        relay = f'[listeners.relay]\nbind = "{self.relay}"\nprotocol = "tcp"\npool = "good"\n'
        self.server: LbprocServer = start(listener(self.address, names) + relay + pools, workers=1)

    def ask(self, name: str) -> Message:
        return fetch(self.address, f"/{name}")

    def rewrite(self, change: Callable[[str], str]) -> None:
        """Changes the configuration, and reloads."""
        path = self.server.config_path
        path.write_text(change(path.read_text()))
        finished = self.server.run_command("reload")
        assert finished.returncode == 0, finished.stderr


def test_backends_are_trusted_or_refused_for_the_right_reason(
    stage: Stage, start_lbproc: StartLbproc, tmp_path: Path
) -> None:
    service = Service(stage, start_lbproc, tmp_path)
    for name in ("good", "old", "new", "named", "alone", "checked"):
        answer = service.ask(name)
        assert (answer.status, answer.body) == (200, name.encode())
        assert service.scripts[name].alpn == "http/1.1"
    expected = {
        "misnamed": (502, "tls_certificate_error", "IP address mismatch"),
        "untrusted": (502, "tls_certificate_error", "unable to get local issuer certificate"),
        "expired": (502, "tls_certificate_error", "certificate has expired"),
        "lonely": (502, "tls_certificate_error", "self-signed certificate"),
        "closed_old": (502, "tls_alert_received", "handshake failure"),
        "closed_new": (502, "tls_alert_received", "certificate required"),
        "outdated": (502, "tls_alert_received", "protocol version"),
        "stalling": (504, "connection_timeout", "not over in time"),
        "babbling": (502, "tls_protocol_error", "wrong version number"),
    }
    for name, (status, error, words) in expected.items():
        told = refusal(service.ask(name))
        assert told[:2] == (status, error), name
        assert words in told[2]
    lines = service.server.access_log(6 + len(expected))[6:]
    assert [line["cause"] for line in lines] == [error for _, error, _ in expected.values()]
    assert "not valid for '127.0.0.1'" in service.server.stderr()

    # Checks show the certificate, too: without it the backend would be down.
    status = service.server.status()["pools"]["checked"]["backends"][0]
    assert status["health"] == "up"

    # Connections are used again, sessions go on, without HTTP as well.
    good = service.scripts["good"]
    assert good.resumed == [False]
    with RawClient(service.address) as client:
        for _ in range(5):
            assert client.request("/good").status == 200
    assert good.resumed == [False]
    for is_resumed in (False, True):  # no protocol is named there, so it is another context
        with RawClient(service.relay) as client:
            assert client.request("/good").status == 200
        assert good.resumed.pop() is is_resumed
    assert good.alpn is None

    # A reload that changes nothing of it keeps the connection; another authority does not.
    service.rewrite(lambda text: text.replace("workers = 1", "workers = 1\ndrain_timeout = '7s'"))
    assert service.ask("good").status == 200
    assert good.resumed == [False]
    service.ca.write_bytes(service.other.pem)
    service.rewrite(lambda text: text)
    wait_until(lambda: refusal(service.ask("good"))[1] == "tls_certificate_error", "the new rules hold")
    assert service.ask("untrusted").status == 200
    service.ca.write_bytes(service.other.pem + service.authority.pem)
    service.rewrite(lambda text: text)
    assert service.ask("good").status == 200
    assert good.resumed == [False, False]


_SERVER = """
    server {{
        listen {address} ssl;
        listen {proxied} ssl proxy_protocol;
        ssl_certificate {cert};
        ssl_certificate_key {key};
        ssl_client_certificate {ca};
        ssl_verify_client on;
        ssl_protocols TLSv1.2 TLSv1.3;
        keepalive_requests 5;
        location / {{
            add_header X-Tls "$ssl_protocol $ssl_session_reused $ssl_client_verify $ssl_server_name";
            add_header X-From "$proxy_protocol_addr";
            return 200 "nginx";
        }}
        location /nginx/files/ {{
            alias {directory}/files/;
            dav_methods PUT;
            client_max_body_size 0;
        }}
    }}
"""


def test_a_real_nginx_behind_tls(
    start_lbproc: StartLbproc,
    programs: Callable[[Program], None],
    require_program: RequireProgram,
    tmp_path: Path,
) -> None:
    authority = Authority("backends")
    ca = authority.write(tmp_path)
    cert, key = authority.issue("app.test").write(tmp_path, "nginx")
    own = authority.issue("lbproc.test", purpose="client").toml(tmp_path, "own")
    secure, proxied, directory = f"{IP}:{free_port()}", f"{IP}:{free_port()}", tmp_path / "nginx"
    servers = _SERVER.format(address=secure, proxied=proxied, cert=cert, key=key, ca=ca, directory=directory)
    nginx = Nginx(require_program("nginx"), directory, "nginx", servers)
    programs(nginx)
    nginx.start()
    address = f"{IP}:{free_port()}"
    tls = f'ca = "{ca}", server_name = "app.test", certificate = {own}'
    start_lbproc(
        listener(address, ["nginx", "proxied"])
        + pool("nginx", secure, tls)
        + pool("proxied", proxied, tls, 'proxy_protocol = "v2"'),
        workers=1,
    )

    with RawClient(address) as client:
        said = [client.request("/nginx").get("X-Tls") for _ in range(12)]
    reused = [(words or "").split() for words in said]
    assert {(words[0], words[2], words[3]) for words in reused} == {("TLSv1.3", "SUCCESS", "app.test")}
    assert [words[1] for words in reused] == ["."] * 5 + ["r"] * 7  # nginx ends a connection after five

    with RawClient(address) as client:
        put = client.request("/nginx/files/large", method="PUT", body=LARGE)
        assert put.status in {201, 204}
        assert client.request("/nginx/files/large").sha256 == sha256(LARGE).hexdigest()
    assert (nginx.files / "large").read_bytes() == LARGE

    answer = fetch(address, "/proxied")
    assert (answer.status, answer.get("X-From")) == (200, IP)
