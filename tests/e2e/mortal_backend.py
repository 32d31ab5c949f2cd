"""A backend program to be killed: ``python mortal_backend.py HOST:PORT NAME``. Answers with its name.

A thread for each connection; needs nothing but the standard library, so that it starts at once.
"""

from __future__ import annotations

import socketserver
import sys


class Connection(socketserver.StreamRequestHandler):
    """Serves requests without a body until the connection ends."""

    disable_nagle_algorithm = True

    def handle(self) -> None:
        name = sys.argv[2].encode()
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(name), name)
        try:
            while line := self.rfile.readline():
                if line == b"\r\n":
                    self.wfile.write(answer)
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
