"""A control socket that answers one question as it is told, in a thread of the test process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lbproc.core.control.codec import Decoder
from lbproc.core.control.messages import Message


@contextmanager
def answering(path: Path, answer: bytes | None) -> Iterator[list[Message]]:
    """Listens at ``path``; yields the questions that came in.

    Args:
        path: the control socket.
        answer: sent after the first question, then the connection is closed; None: silence, until the asker
            leaves.
    """
    asked: list[Message] = []
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        connection, _ = listener.accept()
        listener.close()  # who asks again is refused at once, and need not wait for an answer in vain
        decoder = Decoder()
        with connection:
            while received := connection.recv(4096):
                decoder.feed(received)
                if (message := decoder.next_message()) is not None:
                    asked.append(message)
                    if answer is not None:
                        connection.sendall(answer)
                        return

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield asked
    finally:
        thread.join(30)
        listener.close()
        path.unlink()
