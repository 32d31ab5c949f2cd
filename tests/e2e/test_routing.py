"""Which listener, which route and which backend a request takes, over addresses of every kind."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.e2e.harness import wait_until, web_config
from tests.e2e.harness_client import RawClient, fetch, render_request
from tests.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.conftest import StartLbproc, StartWeb
    from tests.e2e.harness_backend import Backend, Stage

pytestmark = pytest.mark.slow


def pool(name: str, *backends: Backend, backup: Backend | None = None) -> str:
    """A pool; the last backend may be its backup."""
    rows = [json.dumps(backend.address) for backend in backends]
    if backup is not None:
        rows.append(f'{{ address = "{backup.address}", backup = true }}')
    return f"[pools.{name}]\nbackends = [{', '.join(rows)}]\n"


def body(address: str, target: str = "/", *, host: str = "example.com", method: str = "GET") -> str | int:
    """The body of a good answer, else its status."""
    with RawClient(address) as client:
        client.send(render_request(target, method=method).replace(b"example.com", host.encode()))
        answer = client.read_response()
    return answer.body.decode() if answer.status == 200 else answer.status


def test_ipv6_in_front_and_behind(stage: Stage, start_lbproc: StartLbproc) -> None:
    backend = stage.open("six", host="::1")
    address = f"[::1]:{free_port('::1')}"
    server = start_lbproc(web_config(address, [backend.address]))
    assert fetch(address).body == b"six"
    (request,) = backend.requests
    assert request.get("x-forwarded-for") == "::1"
    (line,) = server.access_log(1)
    assert (line["client_ip"], line["backend"]) == ("::1", backend.address)


def test_unix_sockets_in_front_and_behind(stage: Stage, start_lbproc: StartLbproc, tmp_path: Path) -> None:
    backend = stage.open("local", path=tmp_path / "backend.sock")
    address = f"unix:{tmp_path / 'web.sock'}"
    server = start_lbproc(web_config(address, [backend.address]))
    assert [fetch(address).body for _ in range(5)] == [b"local"] * 5
    assert server.access_log(5)[0]["client_ip"] is None


def test_backend_by_host_name(stage: Stage, start_web: StartWeb) -> None:
    backend = stage.open("named")
    name = backend.address.replace("127.0.0.1", "localhost")
    server, address = start_web([name])
    wait_until(lambda: "name_resolved" in server.events(), "the name is resolved")
    wait_until(lambda: body(address) == "named", "the workers know its addresses")
    assert backend.requests[0].get("host") == "example.com"
    assert list(server.in_flight()) == [f"web/{name}"]


def test_backend_that_refuses_costs_no_request(stage: Stage, start_web: StartWeb) -> None:
    gone, good = stage.open("gone"), stage.open("good")
    gone.refuse()
    server, address = start_web([gone, good], pool='policy = "round_robin"')
    assert [body(address) for _ in range(20)] == ["good"] * 20
    assert sum(line["retries"] for line in server.access_log(20)) == 10
    by_name = {backend["name"]: backend for backend in server.status()["pools"]["web"]["backends"]}
    assert by_name[good.address]["requests"] == 20
    assert "backend_unreachable" in server.events()
    assert set(server.in_flight().values()) == {0}


def test_backup_serves_only_while_the_others_refuse(stage: Stage, start_lbproc: StartLbproc) -> None:
    first, backup = stage.open("first"), stage.open("backup")
    address = f"127.0.0.1:{free_port()}"
    listener = f'[listeners.web]\nbind = "{address}"\npool = "web"\n'
    start_lbproc(listener + pool("web", first, backup=backup))
    assert [body(address) for _ in range(10)] == ["first"] * 10
    first.refuse()
    assert [body(address) for _ in range(10)] == ["backup"] * 10
    returned = stage.open("returned", port=int(first.address.rpartition(":")[2]))
    assert [body(address) for _ in range(10)] == ["returned"] * 10
    assert len(returned.requests) == len(backup.requests) == 10


def test_several_listeners_with_several_addresses(
    stage: Stage, start_lbproc: StartLbproc, tmp_path: Path
) -> None:
    web = [f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}", f"unix:{tmp_path / 'web.sock'}"]
    api = [f"127.0.0.1:{free_port()}"]
    server = start_lbproc(
        f'[listeners.web]\nbind = {json.dumps(web)}\npool = "web"\n'
        f'[listeners.api]\nbind = {json.dumps(api)}\npool = "api"\n'
        + pool("web", stage.open("web"))
        + pool("api", stage.open("api"))
    )
    assert [body(address) for address in web + api] == ["web", "web", "web", "api"]
    assert sorted(line["listener"] for line in server.access_log(4)) == ["api", "web", "web", "web"]


ROUTES = """
[[listeners.web.routes]]
name = "api"
match = { host = "*.api.example.com" }
pool = "api"
[[listeners.web.routes]]
name = "files"
match = { path_prefix = "/files", method = ["GET", "HEAD"] }
pool = "files"
[[listeners.web.routes]]
name = "login"
match = { path = "/login", method = "POST" }
pool = "login"
"""


def test_routes_by_host_path_and_method(stage: Stage, start_lbproc: StartLbproc) -> None:
    address = f"127.0.0.1:{free_port()}"
    pools = "".join(pool(name, stage.open(name)) for name in ("api", "files", "login"))
    server = start_lbproc(f'[listeners.web]\nbind = "{address}"\n{ROUTES}{pools}')
    for host, method, target, expected in (
        ("a.api.example.com", "GET", "/", "api"),
        ("A.API.EXAMPLE.COM:8080", "DELETE", "/files/x", "api"),
        ("api.example.com", "GET", "/", 404),
        ("example.com", "GET", "/files/x?y", "files"),
        ("example.com", "GET", "/filesystem", 404),
        ("example.com", "PUT", "/files/x", 404),
        ("example.com", "POST", "/login", "login"),
        ("example.com", "POST", "/login/", 404),
    ):
        assert body(address, target, host=host, method=method) == expected, (host, method, target)
    lines = server.access_log(8)
    assert sorted(line["route"] or "" for line in lines) == ["", "", "", "", "api", "api", "files", "login"]
