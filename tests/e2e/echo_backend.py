"""A backend program that speaks no HTTP: ``python echo_backend.py HOST:PORT NAME``.

It says its name in a line as soon as somebody connects, then everything that it hears, and after the end of
that a farewell. A thread for each connection; needs nothing but the standard library.
"""

from __future__ import annotations

import socket
import socketserver
import sys

FAREWELL = b"farewell\n"


class Connection(socketserver.BaseRequestHandler):
    """Greets, echoes, takes its leave."""

    request: socket.socket

    def handle(self) -> None:
        try:
            self.request.sendall(sys.argv[2].encode() + b"\n")
            while piece := self.request.recv(262_144):
                self.request.sendall(piece)
            self.request.sendall(FAREWELL)
        except OSError:
            return


class Server(socketserver.ThreadingTCPServer):
    """Listens again at once where another one was killed a moment ago."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1024


if __name__ == "__main__":
    host, _, port = sys.argv[1].rpartition(":")
    with Server((host, int(port)), Connection) as server:
        server.serve_forever()
