"""TLS that is passed through to real servers by the name that is asked for, and verified end to end."""

from __future__ import annotations

import socket
import ssl
import threading
from typing import TYPE_CHECKING, Self

import pytest

from tests.certificates import Authority
from tests.e2e.harness import PATIENCE
from tests.e2e.harness_client import RawClient
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.conftest import StartLbproc

pytestmark = pytest.mark.slow

SIZE = 3_000_000


class TlsServer:
    """A server with a certificate for one name. To each client it says its name, then what it hears."""

    def __init__(self, directory: Path, authority: Authority, name: str) -> None:
        self.name = name
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*authority.issue(name).write(directory, name))
        self._context.set_alpn_protocols(["x-test"])
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listening.accept()
            except OSError:
                return
            accepted.settimeout(PATIENCE)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(accepted,)).start()

    def _serve(self, accepted: socket.socket) -> None:
        try:
            with accepted, self._context.wrap_socket(accepted, server_side=True) as connection:
                connection.sendall(self.name.encode() + b"\n")
                while piece := connection.recv(65_536):
                    connection.sendall(piece)
        except OSError:  # the client is gone, or does not believe the certificate
            return


class Client:
    """TLS over memory, so that the test says in which pieces its bytes go out.

    Args:
        address: of lbproc.
        context: verifies the server.
        name: that is asked for.
        piece: bytes that are sent at once of the hello.
    """

    def __init__(self, address: str, context: ssl.SSLContext, name: str, piece: int = 65_536) -> None:
        self._raw = RawClient(address)
        self._socket = self._raw.socket
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_hostname=name)
        self._piece = piece

    def shake_hands(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()
            else:
                self._flush()
                return

    def send(self, data: bytes) -> None:
        self.tls.write(data)
        self._flush()

    def read(self, size: int) -> bytes:
        heard = bytearray()
        while len(heard) < size:
            try:
                heard += self.tls.read(size - len(heard))
            except ssl.SSLWantReadError:
                self._fill()
        return bytes(heard)

    def _flush(self) -> None:
        data = self._out.read()
        for at in range(0, len(data), self._piece):
            self._socket.sendall(data[at : at + self._piece])
        self._piece = 65_536

    def _fill(self) -> None:
        received = self._socket.recv(65_536)
        if not received:
            raise EOFError
        self._in.write(received)

    def close(self) -> None:
        self._raw.close()


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def servers(tmp_path: Path, authority: Authority) -> Iterator[list[TlsServer]]:
    with TlsServer(tmp_path, authority, "a.example") as a, TlsServer(tmp_path, authority, "x.b.example") as b:
        yield [a, b]


def test_names_lead_to_their_servers_which_the_client_verifies_itself(
    servers: list[TlsServer], authority: Authority, start_lbproc: StartLbproc
) -> None:
    address = f"127.0.0.1:{free_port()}"
    a, b = servers
    server = start_lbproc(
        f'[listeners.tls]\nbind = "{address}"\nprotocol = "tls_passthrough"\n'
        'routes = [{ match = { sni = ["a.example"] }, pool = "a" }, '
        '{ match = { sni = ["*.b.example"], alpn = ["x-test"] }, pool = "b" }]\n'
        f'[pools.a]\nbackends = ["{a.address}"]\n[pools.b]\nbackends = ["{b.address}"]\n'
    )
    context = ssl.create_default_context(cadata=authority.pem.decode())
    context.set_alpn_protocols(["x-test", "h2"])
    for name, piece, version in (
        ("a.example", 65_536, ssl.TLSVersion.TLSv1_3),
        ("a.example", 65_536, ssl.TLSVersion.TLSv1_2),
        ("a.example", 1, ssl.TLSVersion.TLSv1_3),
        ("x.b.example", 7, ssl.TLSVersion.TLSv1_3),
    ):
        context.maximum_version = version
        client = Client(address, context, name, piece)
        client.shake_hands()
        assert client.tls.selected_alpn_protocol() == "x-test"
        assert client.read(len(name) + 1) == name.encode() + b"\n"
        word = bytes(range(256)) * 16
        client.send(word)
        assert client.read(len(word)) == word
        client.close()

    # What a server is not for, it is not asked for: the client learns that nobody is there.
    lost = Client(address, context, "c.example")
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        lost.shake_hands()
    lost.close()

    # A large answer, whole.
    client = Client(address, context, "a.example")
    client.shake_hands()
    client.read(len(b"a.example\n"))
    sent = bytes(range(250)) * (SIZE // 250)
    heard: list[bytes] = []
    for at in range(0, SIZE, 60_000):
        client.send(sent[at : at + 60_000])
        heard.append(client.read(60_000))
    assert b"".join(heard) == sent
    client.close()

    lines = server.access_log(6)
    assert sorted({(line["host"], line["route"], line["pool"]) for line in lines}, key=str) == [
        ("a.example", "0", "a"),
        ("c.example", None, None),
        ("x.b.example", "1", "b"),
    ]
    assert {line["cause"] for line in lines if line["host"] == "c.example"} == {"destination_not_found"}
