"""The PROXY protocol with real HAProxy and nginx, on both sides of lbproc and in both versions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.harness import wait_until
from tests.e2e.harness_client import RawClient
from tests.e2e.harness_proxies import STREAM_MODULE, Haproxy, NginxPeer
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import RequireProgram
    from tests.e2e.conftest import StartLbproc
    from tests.e2e.harness import Program

pytestmark = pytest.mark.slow

IN_FRONT = ("direct", "haproxy-v1", "haproxy-v2", "nginx-v1")


def ask(address: str) -> list[tuple[str, list[str]]]:
    """Two requests on one connection: the port that each came from, and what the backend was told."""
    with RawClient(address) as client:
        port = str(client.socket.getsockname()[1])
        return [(port, client.request("/").body.decode().split()) for _ in range(2)]


def test_every_pair_of_proxies_tells_the_client_and_where_it_connected_to(
    tmp_path: Path,
    programs: Callable[[Program], None],
    require_program: RequireProgram,
    start_lbproc: StartLbproc,
) -> None:
    if not Path(STREAM_MODULE).exists():
        pytest.skip("nginx has no stream module")
    kinds = [(protocol, version) for protocol in ("http", "tcp") for version in ("v1", "v2")]
    direct = {kind: f"127.0.0.1:{free_port()}" for kind in kinds}
    behind = {kind: f"127.0.0.1:{free_port()}" for kind in kinds}
    haproxy = Haproxy(
        require_program("haproxy"),
        tmp_path / "haproxy",
        {
            f"{sent}-{protocol}-{version}": (behind[protocol, version], f"send-proxy{suffix}")
            for protocol, version in kinds
            for sent, suffix in (("haproxy-v1", ""), ("haproxy-v2", "-v2 proxy-v2-options unique-id"))
        },
    )
    nginx = NginxPeer(
        require_program("nginx"),
        tmp_path / "nginx",
        {f"nginx-v1-{protocol}-{version}": behind[protocol, version] for protocol, version in kinds},
    )
    for program in (haproxy, nginx):
        programs(program)
        program.start()
    tables = []
    for protocol, version in kinds:
        common = f'protocol = "{protocol}"\npool = "{version}"\n'
        tables.append(f'[listeners.{protocol}-{version}]\nbind = "{direct[protocol, version]}"\n{common}')
        tables.append(
            f'[listeners.{protocol}-{version}-behind]\nbind = "{behind[protocol, version]}"\n{common}'
            'proxy_protocol = true\ntrusted_proxies = ["127.0.0.1"]\n'
        )
    tables += [
        f'[pools.{version}]\nbackends = ["{haproxy.told}", "{nginx.told}"]\npolicy = "round_robin"\n'
        f'proxy_protocol = "{version}"\n[pools.{version}.health]\ncheck = "http"\ninterval = "1s"\n'
        for version in ("v1", "v2")
    ]
    server = start_lbproc("\n".join(tables))

    for protocol, version in kinds:
        name = f"{protocol}-{version}"
        entrances = {"direct": direct[protocol, version]} | {
            front: (haproxy if "haproxy" in front else nginx).fronts[f"{front}-{name}"]
            for front in IN_FRONT[1:]
        }
        for front, address in entrances.items():
            host, _, here = address.rpartition(":")
            seen = set()
            for _ in range(2):  # round robin: each backend is asked
                for port, told in ask(address):
                    seen.add(told[0])
                    assert told[1:5] == ["127.0.0.1", port, host, here], (name, front, told)
                    if told[0] == "haproxy" and version == "v2":
                        assert told[-1] == "32"  # the length of the unique id
            assert seen == {"haproxy", "nginx"}, (name, front)

    # Checks introduce themselves as nobody's, and pass.
    def health() -> set[str]:
        pools = server.status()["pools"].values()
        return {backend["health"] for pool in pools for backend in pool["backends"]}

    wait_until(lambda: health() == {"up"}, "all backends are up")
