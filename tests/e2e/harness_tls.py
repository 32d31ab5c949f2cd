"""Real clients of TLS, curl and openssl, and the files of hosts of all kinds for them."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.certificates import Authority, Pair
from tests.e2e.harness import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

HOSTS = ("a.test", "b.test", "closed.test", "other.test")


@dataclass(frozen=True)
class Said:
    """What a program said, and how it ended."""

    status: int
    text: str

    @property
    def version(self) -> str:
        """Of TLS, by openssl's summary."""
        found = re.search(r"^(?:New|Reused), (TLSv[0-9.]+),", self.text, re.MULTILINE)
        return found[1] if found else ""

    @property
    def is_answered(self) -> bool:
        """Whether the backend has answered."""
        return "\r\n\r\nbackend" in self.text

    @property
    def is_resumed(self) -> bool:
        """Whether openssl went on with a session."""
        return "\nReused, " in self.text


class Pki:
    """The files of a test: an authority, certificates of hosts, and those of clients.

    Args:
        directory: for the files.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority, self.clients, self.strangers = (
            Authority("servers"),
            Authority("clients"),
            Authority("strangers"),
        )
        self.ca = self.authority.write(directory)
        self.client_ca = self.clients.write(directory, "clients")
        for name in HOSTS:
            self.renew(name)
        self.rsa = self.authority.issue("a.test", kind="RSA").toml(directory, "a.test-rsa")
        self._save("good", self.clients.issue("good.test", purpose="client", common_name="good"))
        self._save("expired", self.clients.issue("old.test", purpose="client", days=-1))
        self._save("wrong", self.strangers.issue("stranger.test", purpose="client"))

    def _save(self, name: str, pair: Pair) -> None:
        pair.write(self.directory, name)

    def renew(self, name: str) -> None:
        """Writes another certificate of a host."""
        self._save(name, self.authority.issue(name))

    def entry(self, name: str, more: str = "") -> str:
        """An entry of ``certificates``."""
        return f'{{ cert = "{self.directory / name}.pem", key = "{self.directory / name}.key"{more} }}'

    def certificates(self) -> str:
        """All hosts: two without client certificates, one that requires them, one that takes them."""
        ca = f', client_ca = "{self.client_ca}"'
        entries = [
            self.entry("a.test"),
            self.rsa,
            self.entry("b.test"),
            self.entry("closed.test", ca),
            self.entry("other.test", f'{ca}, client_auth = "optional"'),
        ]
        return f"certificates = [{', '.join(entries)}]"

    def shown(self, name: str) -> list[str]:
        """The options of openssl that show a client's certificate."""
        return ["-cert", f"{self.directory / name}.pem", "-key", f"{self.directory / name}.key"]

    def context(self) -> ssl.SSLContext:
        """Of a client that trusts the hosts."""
        return ssl.create_default_context(cafile=str(self.ca))

    def connect(self, port: int, name: str) -> ssl.SSLSocket:
        """A connection to a host."""
        plain = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        return self.context().wrap_socket(plain, server_hostname=name)

    def s_client(self, port: int, name: str | None, *options: str, request: str = "") -> Said:
        """Runs ``openssl s_client``, which sends a request and reads to the end."""
        named = ["-noservername"] if name is None else ["-servername", name]
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", str(self.ca)]
        command += ["-verify_return_error", "-ign_eof", *named, *options]
        asked = request or f"GET / HTTP/1.1\r\nHost: {name or 'a.test'}\r\nConnection: close\r\n\r\n"
        return self._run(command, asked)

    def curl(self, port: int, url: str, *options: str) -> Said:
        """Runs ``curl``, which goes to this port whatever the URL says."""
        command = ["curl", "-sS", "--http1.1", "--cacert", str(self.ca), "--max-time", "10"]
        return self._run([*command, "--connect-to", f"::127.0.0.1:{port}", *options, url], "")

    def _run(self, command: list[str], given: str) -> Said:
        done = subprocess.run(
            command,
            input=given.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE,
            check=False,
            cwd=self.directory,
        )
        return Said(done.returncode, done.stdout.decode(errors="replace"))


def everything(sock: socket.socket) -> bytes:
    """All that comes up to the end, however that is; b"" for a reset."""
    received = b""
    try:
        while piece := sock.recv(65_536):
            received += piece
    except ConnectionResetError:
        return received
    return received
