"""Real DNS through a UDP listener: dnsmasq behind it, dig in front, and what may happen meanwhile."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.e2e.harness import Program, wait_until
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import RequireProgram
    from tests.e2e.conftest import StartLbproc

NAME = "who.test"
QUERY = (
    r"\u0012\u0034\u0001\u0000\u0000\u0001\u0000\u0000\u0000\u0000\u0000\u0000"
    r"\u0003who\u0004test\u0000\u0000\u0001\u0000\u0001"
)
"""A question for its address, as a text of TOML."""

CONFIG = """
[listeners.dns]
bind = "127.0.0.1:{port}"
protocol = "udp"
pool = "dns"
timeouts = {{ idle = "{idle}" }}
[pools.dns]
backends = ["{one}", "{two}"]
[pools.dns.health]
check = "udp"
send = "{query}"
expect = {{ body = "test" }}
interval = "300ms"
"""


class Dnsmasq(Program):
    """A server that knows one name, whose address is that of nobody else."""

    def __init__(self, binary: str, directory: Path, name: str, answer: str, port: int = 0) -> None:
        self.port = port or free_udp_port()
        self.address = f"127.0.0.1:{self.port}"
        options = [
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--pid-file=",
        ]
        where = [f"--port={self.port}", "--listen-address=127.0.0.1", "--bind-interfaces"]
        account = ["--user=root"] if os.geteuid() == 0 else []
        known = f"--address=/{NAME}/{answer}"
        super().__init__(name, [binary, *options, *where, *account, known], directory)

    def is_ready(self) -> bool:
        """Whether it has bound its port."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("127.0.0.1", self.port))
            except OSError:
                return True
        return False


def free_udp_port() -> int:
    """A port at which neither TCP nor UDP is spoken."""
    while True:
        port = free_port()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


@pytest.mark.slow
@pytest.mark.parametrize(
    "questions", [pytest.param(150, id="short"), pytest.param(20_000, id="soak", marks=pytest.mark.soak)]
)
def test_every_question_is_answered_whatever_happens(
    start_lbproc: StartLbproc,
    programs: Callable[[Program], None],
    require_program: RequireProgram,
    tmp_path: Path,
    questions: int,
) -> None:
    dig, binary = require_program("dig"), require_program("dnsmasq")
    answers = {"one": "192.0.2.1", "two": "192.0.2.2"}

    def start(name: str, port: int = 0) -> Dnsmasq:
        server = Dnsmasq(binary, tmp_path, name, answers[name], port)
        programs(server)
        server.start()
        return server

    backends = {name: start(name) for name in answers}
    port = free_udp_port()
    text = CONFIG.format(
        port=port, idle="1s", one=backends["one"].address, two=backends["two"].address, query=QUERY
    )
    server = start_lbproc(text, workers=3)
    batch = tmp_path / "questions"
    batch.write_text(f"{NAME} A\n" * questions)

    def ask(tries: int = 1) -> Counter[str]:
        """Asks one question after the other; whoever gets no answer in a second would be seen."""
        done = subprocess.run(
            [dig, "@127.0.0.1", "-p", str(port), "+short", f"+tries={tries}", "+time=1", "-f", str(batch)],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-500:] + done.stderr
        return Counter(done.stdout.split())

    def reload(old: str, new: str) -> None:
        path = server.config_path
        path.write_text(path.read_text().replace(old, new))
        done = server.run_command("reload")
        assert done.returncode == 0, done.stderr

    counts = ask()
    assert sum(counts.values()) == questions
    assert min(counts[answer] for answer in answers.values()) > questions // 3
    # A killed backend: its host turns away what comes, and the other gets it.
    backends["one"].destroy()
    assert ask() == {answers["two"]: questions}
    wait_until(lambda: "backend_down" in server.events(), "the check has found it")
    assert ask() == {answers["two"]: questions}
    start("one", backends["one"].port)
    wait_until(lambda: "backend_up" in server.events()[server.events().index("backend_down") :], "it is back")
    # A killed worker, and reloads.
    os.kill(server.worker_pids()[1], signal.SIGKILL)
    after_death = ask(tries=3)  # what it had read when it died is lost, as datagrams are
    assert sum(after_death.values()) == questions
    reload('idle = "1s"', 'idle = "2s"')
    reload("workers = 3", "workers = 4")
    assert sum(ask().values()) == questions
    reload("workers = 4", "workers = 2")
    counts = ask()
    assert sum(counts.values()) == questions
    assert min(counts[answer] for answer in answers.values()) > 0
    assert server.stop() == 0
