"""Active checks with real processes: a backend goes down under traffic and comes back; all workers obey."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.harness import PATIENCE, all_processes, wait_until
from tests.e2e.harness_backend import Backend, text_response
from tests.e2e.harness_client import fetch
from tests.e2e.load import Load

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.conftest import StartWeb
    from tests.e2e.harness import LbprocServer
    from tests.e2e.harness_backend import Stage
    from tests.e2e.harness_wire import Message

pytestmark = pytest.mark.slow

HEALTH = """
[pools.web.health]
path = "/ready"
liveness_path = "/live"
interval = "200ms"
timeout = "200ms"
rise = 2
fall = 2
"""


class Checked:
    """A backend that says how it is when it is asked, and serves whatever it says."""

    def __init__(self, stage: Stage, name: str, *, ready: bool = True, port: int = 0) -> None:
        self.ready = ready
        self.alive = True
        self.traffic = 0
        self.backend: Backend = stage.open(name, port=port)
        self.backend.response = self.respond

    def respond(self, request: Message) -> bytes:
        if request.target in {"/ready", "/live"}:
            good = self.ready if request.target == "/ready" else self.alive
            return text_response("so it is", "200 OK" if good else "503 Service Unavailable")
        self.traffic += 1
        return text_response(self.backend.name)


def of_backend(server: LbprocServer, backend: Backend) -> dict[str, Any]:
    """What the status says of a backend."""
    rows = server.status()["pools"]["web"]["backends"]
    found: dict[str, Any] = next(row for row in rows if row["name"] == backend.address)
    return found


def wait_health(server: LbprocServer, checked: Checked, health: str) -> None:
    wait_until(lambda: of_backend(server, checked.backend)["health"] == health, f"it is {health}")


def test_a_backend_that_says_so_gets_no_traffic_under_load_until_it_is_back(
    stage: Stage, start_web: StartWeb
) -> None:
    all_three = [Checked(stage, name) for name in "abc"]
    sick = all_three[0]
    server, address = start_web([one.backend for one in all_three], workers=4, rest=HEALTH)
    with Load(address, clients=8) as load:
        wait_until(lambda: all(one.traffic > 20 for one in all_three), "all have traffic")
        sick.ready = False
        wait_health(server, sick, "down")
        wait_until(lambda: of_backend(server, sick.backend)["in_flight"] == 0, "nothing is in flight there")
        before, answered = sick.traffic, load.answered
        wait_until(lambda: load.answered > answered + 200, "the others serve")
        assert sick.traffic == before
        sick.ready = True
        wait_health(server, sick, "up")
        wait_until(lambda: sick.traffic > before + 20, "it has traffic again")
    assert (load.lost, load.wrong, load.refused) == (0, [], 0)
    told = [event for event in server.events() if event.startswith("backend_")]
    assert told.count("backend_down") == 1
    assert told.count("backend_up") == 4


def test_a_backend_that_refuses_and_comes_back(stage: Stage, start_web: StartWeb) -> None:
    one, two = Checked(stage, "a"), Checked(stage, "b")
    port = int(one.backend.address.rpartition(":")[2])
    server, address = start_web([one.backend, two.backend], rest=HEALTH)
    wait_health(server, one, "up")
    one.backend.refuse()
    wait_health(server, one, "down")
    wait_until(lambda: of_backend(server, one.backend)["liveness"] == "dead", "its process is dead")
    assert {fetch(address).body for _ in range(20)} == {b"b"}
    again = Checked(stage, "again", port=port)
    wait_health(server, again, "up")
    wait_until(lambda: of_backend(server, again.backend)["liveness"] == "alive", "its process lives")
    assert {fetch(address).body for _ in range(20)} == {b"again", b"b"}


def test_nobody_gets_traffic_before_the_first_good_check(stage: Stage, start_web: StartWeb) -> None:
    only = Checked(stage, "a", ready=False)
    server, address = start_web([only.backend], rest=HEALTH)
    assert of_backend(server, only.backend)["health"] in {"checking", "down"}
    assert fetch(address).status == 503
    wait_health(server, only, "down")
    assert only.traffic == 0
    only.ready = True
    wait_until(lambda: fetch(address).status == 200, "it serves")


def test_the_start_waits_for_first_checks(stage: Stage, start_web: StartWeb) -> None:
    server, address = start_web([Checked(stage, name).backend for name in "abc"], rest=HEALTH)
    assert fetch(address).status == 200
    assert {row["health"] for row in server.status()["pools"]["web"]["backends"]} == {"up"}


def test_health_survives_reloads_and_new_backends_are_up_when_they_are_in_force(
    stage: Stage, start_web: StartWeb
) -> None:
    sick, well, new = Checked(stage, "a", ready=False), Checked(stage, "b"), Checked(stage, "c")
    server, address = start_web([sick.backend, well.backend], rest=HEALTH)
    wait_health(server, sick, "down")
    text = server.config_path.read_text()
    with_new = text.replace("backends = [", f'backends = [ "{new.backend.address}",')
    with Load(address, clients=4) as load:
        for reload in range(4):
            server.config_path.write_text(text if reload % 2 else with_new)
            done = server.run_command("reload")
            assert done.returncode == 0, done.stderr
            assert of_backend(server, sick.backend)["health"] == "down"
            assert of_backend(server, well.backend)["health"] == "up"
            if not reload % 2:
                assert of_backend(server, new.backend)["health"] == "up"
    assert (load.lost, load.wrong, load.refused) == (0, [], 0)
    assert sick.traffic == 0
    server.config_path.write_text(text.partition("[pools.web.health]")[0])
    assert server.run_command("reload").returncode == 0
    wait_health(server, sick, "up")  # nobody asks any more
    server.config_path.write_text(text)
    assert server.run_command("reload").returncode == 0
    wait_health(server, sick, "down")
    assert "controller_exited" not in server.events()


def test_a_reload_that_changes_everything_finds_its_new_pool_up(stage: Stage, start_web: StartWeb) -> None:
    old, new = Checked(stage, "old"), Checked(stage, "new")
    server, address = start_web([old.backend], rest=HEALTH)
    text = server.config_path.read_text()
    changed = text.replace("[pools.web", "[pools.other").replace('pool = "web"', 'pool = "other"')
    with Load(address, clients=4) as load:
        wait_until(lambda: load.answered > 50, "there is traffic")
        server.config_path.write_text(changed.replace(old.backend.address, new.backend.address))
        done = server.run_command("reload")
        assert done.returncode == 0, done.stderr
        wait_until(lambda: new.traffic > 50, "the new pool serves")
    assert (load.lost, load.wrong, load.refused) == (0, [], 0)


def test_health_survives_the_controller_and_is_looked_after_again(stage: Stage, start_web: StartWeb) -> None:
    down, up = Checked(stage, "a", ready=False), Checked(stage, "b")
    server, address = start_web([down.backend, up.backend], rest=HEALTH)
    wait_health(server, down, "down")
    workers = set(server.worker_pids())
    (controller,) = (
        process.pid
        for process in all_processes()
        if process.parent == server.pid and process.pid not in workers
    )
    os.kill(controller, signal.SIGKILL)
    wait_until(lambda: "controller_exited" in server.events(), "the controller is gone")
    assert [of_backend(server, one.backend)["health"] for one in (down, up)] == ["down", "up"]
    assert {fetch(address).body for _ in range(10)} == {b"b"}
    down.ready = True
    wait_health(server, down, "up")
    up.ready = False
    wait_health(server, up, "down")
    assert {fetch(address).body for _ in range(10)} == {b"a"}


def test_what_checks_log_in_with_is_sent_and_shows_nowhere(
    stage: Stage, start_web: StartWeb, tmp_path: Path
) -> None:
    strict, echoing = stage.open("a"), stage.open("b")
    login, token = "Basic aHVzaDpwdXBweQ==", "hush-puppy"

    def admit(request: Message) -> bytes:
        is_right = request.get("Authorization") == login and request.get("X-Token") == token
        return text_response("so it is", "200 OK" if is_right else "401 Unauthorized")

    strict.response = admit
    echoing.response = lambda request: (
        f"{request.get('Authorization')} {request.get('X-Token')}\r\n\r\n".encode()
    )
    (tmp_path / "token").write_text(token + "\n")
    secrets = 'headers = { Authorization = { env = "PROBE_LOGIN" }, X-Token = { file = "token" } }\n'
    server, _ = start_web(
        [strict, echoing],
        rest=HEALTH + secrets,
        log='level = "debug"',
        environ={"PROBE_LOGIN": login},
    )
    wait_until(lambda: of_backend(server, strict)["health"] == "up", "it was let in")
    wait_until(lambda: of_backend(server, echoing)["health"] == "down", "it does not speak HTTP")
    text = server.config_path.read_text()
    server.config_path.write_text(text.replace(secrets, 'headers = { Authorization = "Basic eA==" }\n'))
    reloaded = server.run_command("reload")
    assert reloaded.returncode == 0, reloaded.stderr
    assert "headers.Authorization: another value" in reloaded.stdout
    wait_until(lambda: of_backend(server, strict)["health"] == "down", "another login is refused")
    server.config_path.write_text(text)
    said = server.stderr() + reloaded.stdout + reloaded.stderr + json.dumps(server.status())
    for command in (("config", "diff"), ("reload",), ("config", "show")):
        done = subprocess.run(
            [sys.executable, "-m", "lbproc", *command],
            env={**os.environ, "LBPROC_SOCKET": str(server.control_socket), "PROBE_LOGIN": login},
            cwd=tmp_path,  # where a file of the usual name is found
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
        said += done.stdout + done.stderr
    assert 'env = "PROBE_LOGIN"' in said
    assert "the answer breaks HTTP" in said
    assert login.removeprefix("Basic ") not in said
    assert token not in said
