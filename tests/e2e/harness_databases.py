"""Real PostgreSQL and Redis servers, with the programs that come with them to put load on them.

Owns their directories, which are not the test's: PostgreSQL refuses to run as root, and another user may not
look into directories of tests. Nothing of theirs is kept on a disk for good.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.harness import PATIENCE, Program, all_processes, wait_until
from tests.e2e.harness_client import RawClient
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lbproc.types import Seconds

NOBODY = 65_534
"""The user that PostgreSQL runs as where the tests run as root."""

_ROLE = "bench"


class Postgres(Program):
    """One PostgreSQL server with the tables of pgbench.

    Args:
        name: for messages.
        programs: the directory of its programs.

    Attributes:
        address: where it listens.
    """

    def __init__(self, name: str, programs: Path) -> None:
        self._programs = programs
        self._root = Path(tempfile.mkdtemp(prefix=f"lbproc-{name}-"))
        self._port = free_port()
        self.address = f"127.0.0.1:{self._port}"
        if os.geteuid() == 0:
            os.chown(self._root, NOBODY, NOBODY)
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self._port),
            "unix_socket_directories": "",
            "max_connections": "100",
            "fsync": "off",
            "shared_buffers": "16MB",
            "autovacuum": "off",
        }
        options = [option for key, value in settings.items() for option in ("-c", f"{key}={value}")]
        super().__init__(name, self._command("postgres", "-D", self._data, *options), self._root)

    @property
    def _data(self) -> str:
        return str(self._root / "data")

    def _command(self, program: str, *arguments: str) -> list[str]:
        """As a user that is not root."""
        become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        return [*(become if os.geteuid() == 0 else []), str(self._programs / program), *arguments]

    def start(self) -> None:
        """Makes its database and starts it."""
        if not Path(self._data).exists():
            arguments = ("--no-sync", "--auth=trust", f"--username={_ROLE}", "--no-instructions")
            self._run(self._command("initdb", "-D", self._data, *arguments))
        super().start()
        self._run(
            [str(self._programs / "pgbench"), *_at(self.address), "--initialize", "--quiet", "postgres"]
        )

    def _run(self, command: Sequence[str]) -> str:
        ended = subprocess.run(
            command, cwd=self._root, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def is_ready(self) -> bool:
        """Whether it takes queries."""
        command = [str(self._programs / "pg_isready"), "--quiet", *_at(self.address)]
        return subprocess.run(command, check=False, timeout=PATIENCE).returncode == 0

    def ask(self, query: str) -> str:
        """What a query says, values separated by ``|``."""
        psql = [str(self._programs / "psql"), *_at(self.address), "-At", "-c", query, "postgres"]
        return self._run(psql).strip()

    def destroy(self) -> None:
        """Kills it. Its children are in groups of their own; they end when it has."""
        if self._popen is not None:
            children = {process.pid for process in all_processes() if process.parent == self.pid}
            super().destroy()
            wait_until(
                lambda: not children & {process.pid for process in all_processes()},
                f"the children of {self.name} are gone",
            )
        shutil.rmtree(self._root, ignore_errors=True)


class PgBench(Program):
    """pgbench: each client updates a row and inserts another, in one transaction after the other.

    Args:
        programs: the directory of PostgreSQL's programs.
        directory: for its output.
        address: where it connects to.
        seconds: how long.
        clients: how many.
        reconnects: every transaction has a connection of its own.
        name: tells several apart.
    """

    def __init__(
        self,
        programs: Path,
        directory: Path,
        address: str,
        seconds: int,
        clients: int,
        *,
        reconnects: bool = False,
        name: str = "pgbench",
    ) -> None:
        options = ["--no-vacuum", "--skip-some-updates", f"--time={seconds}", f"--client={clients}"]
        if reconnects:
            options.append("--connect")
        super().__init__(name, [str(programs / "pgbench"), *_at(address), *options, "postgres"], directory)

    def lost_clients(self) -> int:
        """How many clients have lost their connections, after the end."""
        return len(set(re.findall(r"client (\d+) (?:script \d+ )?aborted", self.stderr())))

    def processed(self) -> int:
        """How many transactions succeeded, after the end."""
        found = re.search(r"transactions actually processed: (\d+)", self.stdout())
        assert found is not None, self.stdout() + self.stderr()
        return int(found[1])

    def assert_untroubled(self, within: Seconds = PATIENCE) -> int:
        """Waits for its end: nothing failed. Returns how many transactions succeeded."""
        assert self.wait(within) == 0, self.stderr()
        assert "number of failed transactions: 0 " in self.stdout(), self.stdout()
        return self.processed()


class Redis(Program):
    """One Redis server that keeps nothing.

    Args:
        program: path of redis-server.
        directory: for its output.
        name: for messages.

    Attributes:
        address: where it listens.
    """

    def __init__(self, program: str, directory: Path, name: str) -> None:
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
        super().__init__(name, [program, *options], directory)

    def is_ready(self) -> bool:
        """Whether it answers."""
        try:
            with RawClient(self.address) as client:
                return ask_redis(client, "PING") == b"PONG"
        except OSError:
            return False


def redis_benchmark(
    program: str, directory: Path, address: str, requests: int, *options: str, name: str = "redis-benchmark"
) -> Program:
    """redis-benchmark, to be spawned: 20 clients and values of 3000 bytes; it gives up at any loss."""
    host, _, port = address.rpartition(":")
    command = [program, "-h", host, "-p", port, "-c", "20", "-n", str(requests), "-r", "1000", "-d", "3000"]
    return Program(name, [*command, "-t", "ping,set,get", "-q", *options], directory)


def ask_redis(client: RawClient, *words: str | bytes) -> bytes:
    """One command and its answer, which is a string or a number."""
    parts = [word.encode() if isinstance(word, str) else word for word in words]
    client.send(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
    line = bytearray()
    while not line.endswith(b"\r\n"):
        line += client.read_exactly(1)
    if line[:1] != b"$":
        return bytes(line[1:-2])
    return client.read_exactly(int(line[1:]) + 2)[:-2]


def postgres_programs() -> Path:
    """The directory of PostgreSQL's programs, newest version; the test is skipped where there is none."""
    found = _with_postgres(Path("/usr/lib/postgresql").glob("*/bin"))
    on_path = shutil.which("postgres")
    if on_path is not None:
        found.append(Path(on_path).parent)
    if not found:
        pytest.skip("postgres is not installed")
    return found[0]


def _with_postgres(directories: Iterable[Path]) -> list[Path]:
    def version(directory: Path) -> float:
        return float(directory.parent.name)

    return sorted((one for one in directories if (one / "pgbench").exists()), key=version, reverse=True)


def _at(address: str) -> list[str]:
    host, _, port = address.rpartition(":")
    return ["-h", host, "-p", port, "-U", _ROLE]
