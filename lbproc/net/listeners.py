"""Opening the sockets that lbproc listens on, and what the kernel has to be told about them.

Synchronous and without an event loop, for the supervisor, which owns these sockets. Accepting is the workers'
(`lbproc.net.accept`).

A TCP address is *slotted*: one SO_REUSEPORT socket for each worker slot, among which the kernel spreads new
connections. A Unix address is one socket, shared by all workers. The order of events matters::

    probe_bind → open_slotted (all are bound, none listens) → probe_bind once more → listen, slot by slot
                                  ... serving ...
    shrink:  steer to the slots that stay → accept until quiet → close, the highest slot first
    stop:    refuse_new on every socket   → accept until quiet → close
    try out: refuse_new, listen           → admit_new, or close: nobody's handshake has completed

A socket's place in the kernel's group is the order of `listen`; a close moves the last socket into the
hole. So a program made by `steer` counts slots rightly only if they listen in slot order and leave from the
highest down.
"""

from __future__ import annotations

import array
import contextlib
import errno
import itertools
import os
import socket
import stat
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING

from lbproc.errors import StartError
from lbproc.net.sockaddr import address_family, bound_address, socket_address
from lbproc.net.socket_file import SocketFile, locked_directory
from lbproc.types import TcpAddress, UnixAddress

if TYPE_CHECKING:
    from collections.abc import Callable

    from lbproc.types import Address, Seconds

DEFAULT_BACKLOG = 4096
"""What is asked of the kernel, which cuts it to net.core.somaxconn."""

# asm-generic/socket.h; the socket module has no names for them. Alpha, PA-RISC, MIPS and SPARC differ.
_SO_ATTACH_FILTER = 26
_SO_DETACH_FILTER = 27
_SO_ATTACH_REUSEPORT_CBPF = 51

# linux/filter.h: one instruction is (code, jump if true, jump if false, operand).
_INSTRUCTION = struct.Struct("=HBBI")
_LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_LOAD_BYTE = 0x30  # BPF_LD | BPF_B | BPF_ABS
_AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
_MODULO = 0x94  # BPF_ALU | BPF_MOD | BPF_K
_JUMP_IF_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_RETURN_VALUE = 0x06  # BPF_RET | BPF_K
_RETURN_RESULT = 0x16  # BPF_RET | BPF_A
_RANDOM = 0xFFFFF000 + 56  # SKF_AD_OFF + SKF_AD_RANDOM: a random number instead of a byte of the packet

_REMEDIES = {
    errno.EADDRINUSE: "stop the program that uses it (ss -lntup shows it) or choose another address",
    errno.EADDRNOTAVAIL: "no interface of this host has that address (ip addr shows them)",
    errno.EACCES: "ports below 1024 need root or CAP_NET_BIND_SERVICE, files the right to write there",
    errno.ENOENT: "make the directory first",
    errno.EAFNOSUPPORT: "this host has no IPv6",
}

_TCP_FLAGS_OFFSET = 13
_SYN = 0x02
_SYN_AND_ACK = 0x12
_WHOLE_PACKET = 0xFFFFFFFF


def probe_bind(
    address: TcpAddress,
    *,
    attempts: int = 51,
    pause: Seconds = 0.1,
    sleep: Callable[[Seconds], None] = time.sleep,
) -> None:
    """Makes sure that no other program listens on a TCP address.

    SO_REUSEPORT alone would let a second program of the same user join without a word, and take a share of
    the traffic. So the address is bound once without it, and let go. A predecessor that is about to leave
    gets some time.

    Args:
        address: With an IP literal as host. Port 0 needs no probe: the kernel picks a free one.
        attempts: How often to try, at least once.
        pause: Seconds between two tries.
        sleep: Waits that long; what it raises ends the tries.

    Raises:
        StartError: The address is in use to the end, or cannot be bound at all.
    """
    if address.port == 0:
        return
    for attempt in itertools.count(1):
        try:
            with _make_tcp_socket(address) as sock:
                sock.bind(socket_address(address))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or attempt == attempts:
                raise bind_error(address, error) from error
            sleep(pause)
        else:
            return


def open_slotted(address: TcpAddress, slots: int) -> list[socket.socket]:
    """Binds one socket for each slot. None listens yet: `listen` to them in slot order.

    Args:
        address: With an IP literal as host. IPv6 is IPv6 only. With port 0 the kernel's choice for the
            first slot is used for all; `lbproc.net.sockaddr.bound_address` tells it.
        slots: At least 1.

    Raises:
        StartError: A socket cannot be bound; none is left open.
    """
    sockets: list[socket.socket] = []
    try:
        for _ in range(slots):
            sock = _make_tcp_socket(address)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(socket_address(address))
            address = TcpAddress(address.host, bound_address(sock).port)
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise bind_error(address, error) from error
    return sockets


def open_unix(address: UnixAddress, *, mode: int | None = None) -> tuple[socket.socket, SocketFile]:
    """Binds a Unix socket, after removing the file of a program that is gone. It does not listen yet.

    Args:
        address: Where.
        mode: Permissions of the file, in force from the moment it exists; None leaves them to the umask.
            Changes the umask for an instant, so call it while the process has one thread.

    Raises:
        StartError: A program listens there, the path is something else than a socket, or it cannot be bound.
    """
    path = Path(address.path)
    with locked_directory(path):
        _remove_stale(address)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if mode is None:
                sock.bind(address.path)
            else:
                umask = os.umask(0o777 & ~mode)
                try:
                    sock.bind(address.path)
                finally:
                    os.umask(umask)
            return sock, SocketFile.of(path)
        except OSError as error:
            sock.close()
            raise bind_error(address, error) from error


def require_name(file: SocketFile) -> None:
    """Makes sure that a Unix socket still has its name.

    Raises:
        StartError: Another program has the path.
    """
    if not file.is_there():
        raise StartError(
            f"unix:{file.path}: another program began to use the path; stop it or choose another path"
        )


def listen_unix(sock: socket.socket, file: SocketFile, backlog: int = DEFAULT_BACKLOG) -> None:
    """Begins to listen on a Unix socket, if it still has its name.

    Between bind and listen a socket looks as if its program were gone, so another may have replaced the
    file: then clients would come to the other one.

    Raises:
        StartError: Another program has the path.
    """
    with locked_directory(file.path):
        require_name(file)
        listen(sock, backlog)


def listen(sock: socket.socket, backlog: int = DEFAULT_BACKLOG) -> None:
    """Begins to listen, without ever blocking on accept.

    Raises:
        StartError: Another program began to listen on the address since it was bound.
    """
    sock.setblocking(False)
    try:
        sock.listen(backlog)
    except OSError as error:
        is_unix = sock.family is socket.AF_UNIX
        address = UnixAddress(sock.getsockname()) if is_unix else bound_address(sock)
        raise bind_error(address, error) from error


def steer(sock: socket.socket, live_slots: int) -> None:
    """Gives new connections to the first slots only, each an equal share.

    It is one program for the whole SO_REUSEPORT group of the socket, and replaces the one before.
    Handshakes that have begun stay where they are. The choice is random rather than by the packet's hash,
    which the kernel has not computed for most network cards.

    Args:
        sock: Any socket of the group.
        live_slots: How many slots, from the lowest, get connections; at least 1.
    """
    _attach(sock, _SO_ATTACH_REUSEPORT_CBPF, (
        (_LOAD_WORD, 0, 0, _RANDOM),
        (_MODULO, 0, 0, live_slots),
        (_RETURN_RESULT, 0, 0, 0),
    ))  # fmt: skip


def refuse_new(sock: socket.socket) -> None:
    """Drops the SYN of every new connection to a TCP socket, while handshakes that began complete.

    A socket that does not listen yet takes nothing from its first moment on, so that it can be closed again
    without a reset for anybody.

    A client whose SYN was dropped sends it again after a second: to whoever listens by then, or to be
    refused. A Unix socket has no SYN: it is shut down, after which a connect is refused and accept gives
    what is queued.
    """
    if sock.family is socket.AF_UNIX:
        sock.shutdown(socket.SHUT_RD)
        return
    _attach(sock, _SO_ATTACH_FILTER, (
        (_LOAD_BYTE, 0, 0, _TCP_FLAGS_OFFSET),
        (_AND, 0, 0, _SYN_AND_ACK),
        (_JUMP_IF_EQUAL, 0, 1, _SYN),
        (_RETURN_VALUE, 0, 0, 0),
        (_RETURN_VALUE, 0, 0, _WHOLE_PACKET),
    ))  # fmt: skip


def admit_new(sock: socket.socket) -> None:
    """Takes `refuse_new` of a TCP socket back. It cannot fail, and may be said of any TCP socket."""
    with contextlib.suppress(FileNotFoundError):  # there is no filter
        sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


def _attach(sock: socket.socket, option: int, instructions: tuple[tuple[int, int, int, int], ...]) -> None:
    """Gives the kernel a classic BPF program; it makes its own copy (struct sock_fprog of linux/filter.h)."""
    program = array.array("B", b"".join(_INSTRUCTION.pack(*instruction) for instruction in instructions))
    sock.setsockopt(
        socket.SOL_SOCKET, option, struct.pack("@HP", len(instructions), program.buffer_info()[0])
    )


def _make_tcp_socket(address: TcpAddress) -> socket.socket:
    family = address_family(address)
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return sock


def _remove_stale(address: UnixAddress) -> None:
    path = Path(address.path)
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise StartError(f"{address}: the path exists and is not a socket; remove it or choose another")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            status = sock.connect_ex(address.path)
        if status != errno.ECONNREFUSED:
            # Connected, or a full queue (EAGAIN), or no right to ask (EACCES): it may well be alive.
            raise StartError(f"{address}: another program listens there; stop it or choose another path")
        path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise bind_error(address, error) from error


def bind_error(address: Address, error: OSError, kind: str = "") -> StartError:
    """Why an address cannot be bound, and what helps; ``kind`` stands before the address."""
    remedy = _REMEDIES.get(error.errno or 0)
    reason = os.strerror(error.errno or 0)
    return StartError(f"cannot listen on {kind}{address}: {reason}{f'; {remedy}' if remedy else ''}")
