"""lbproc as a service of the machine's own systemd, where it has one: what the stand-in cannot vouch for."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.harness import LbprocServer, wait_until, web_config
from tests.e2e.harness_client import fetch
from tests.ports import free_port

if TYPE_CHECKING:
    from tests.e2e.harness_backend import Stage

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(not Path("/run/systemd/system").is_dir(), reason="systemd does not run here"),
]

ROOT = Path(__file__).parents[2]
SCOPE = [] if os.geteuid() == 0 else ["--user"]
UNIT = f"lbproc-test-{os.getpid()}.service"


def systemctl(*arguments: str) -> str:
    command = ["systemctl", *SCOPE, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def shown(key: str) -> str:
    return systemctl("show", "--value", f"--property={key}", UNIT).strip()


@pytest.fixture
def address(stage: Stage, tmp_path: Path) -> Iterator[str]:
    """A service that serves; its address."""
    address = f"127.0.0.1:{free_port()}"
    server = LbprocServer(tmp_path, web_config(address, [stage.open("a").address]))
    version = int(re.findall(r"\d+", systemctl("--version"))[0])
    kind = ["Type=notify-reload"] if version >= 253 else ["Type=notify", "ExecReload=/bin/kill -HUP $MAINPID"]
    properties = [*kind, "Restart=on-failure", "RestartSec=100ms", "WatchdogSec=10", "KillMode=mixed"]
    subprocess.run(
        [
            "systemd-run", *SCOPE, "--unit", UNIT, f"--setenv=PYTHONPATH={ROOT}",
            *(f"--property={line}" for line in properties), *server.command,
        ],
        check=True, timeout=60,
    )  # fmt: skip
    yield address
    subprocess.run(["systemctl", *SCOPE, "stop", UNIT], check=False, timeout=60)
    subprocess.run(["systemctl", *SCOPE, "reset-failed", UNIT], check=False, capture_output=True, timeout=60)


def test_it_is_started_reloaded_crashed_and_stopped(address: str) -> None:
    assert shown("ActiveState") == "active"
    assert fetch(address).status == 200
    systemctl("reload", UNIT)
    wait_until(lambda: shown("ActiveState") == "active", "the end of the reload")
    assert fetch(address).status == 200
    first = int(shown("MainPID"))
    children = [int(pid) for pid in Path(f"/proc/{first}/task/{first}/children").read_text().split()]
    systemctl("kill", "--kill-who=main", "--signal=KILL", UNIT)
    wait_until(
        lambda: int(shown("MainPID")) not in {0, first} and shown("SubState") == "running", "a new one"
    )
    assert fetch(address).status == 200
    wait_until(
        lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), "the old children are gone"
    )
    systemctl("stop", UNIT)
    assert shown("ActiveState") in {"inactive", ""}
