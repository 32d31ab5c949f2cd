"""Opening the sockets that datagrams come to, and what the kernel has to be told about them.

Synchronous and without an event loop, for the supervisor, which owns these sockets. Receiving is the workers'
(`lbproc.net.udp`).

An address is *slotted*, as those of TCP are: one SO_REUSEPORT socket for each worker slot, among which the
kernel spreads flows by a hash of both ends. A datagram socket has no `listen`: it receives from the moment
when it is bound, and its place in the kernel's group is the order of `bind`. A close moves the last socket
into the hole. So sockets are bound in slot order and closed from the highest down::

    first time: the first is bound alone, which proves that nobody else is there; then the others join it
    grow:       steer to the slots there are → bind the others → steer to all of them
    shrink:     steer to the slots that stay → serve until quiet → close, the highest slot first

A program made by `steer` keeps each flow on one slot. With another number of slots most flows come to others.
"""

from __future__ import annotations

import array
import errno
import itertools
import socket
import struct
import time
from typing import TYPE_CHECKING, Final

from lbproc.errors import StartError
from lbproc.net.listeners import bind_error
from lbproc.net.sockaddr import address_family, bound_address, socket_address
from lbproc.types import TcpAddress

if TYPE_CHECKING:
    from collections.abc import Callable

    from lbproc.types import Seconds

IP_PKTINFO: Final = 8
"""linux/in.h; the socket module has no name for it before Python 3.14."""

_ANY = frozenset({"0.0.0.0", "::"})  # noqa: S104  compared with, not bound here

_SO_ATTACH_REUSEPORT_CBPF = 51

# linux/filter.h: one instruction is (code, jump if true, jump if false, operand).
_INSTRUCTION = struct.Struct("=HBBI")
_LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_LOAD_BYTE = 0x30  # BPF_LD | BPF_B | BPF_ABS
_LOAD_HALF_AT_X = 0x48  # BPF_LD | BPF_H | BPF_IND
_LOAD_MEMORY = 0x60  # BPF_LD | BPF_MEM
_STORE = 0x02  # BPF_ST
_AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
_SHIFT_LEFT = 0x64  # BPF_ALU | BPF_LSH | BPF_K
_SHIFT_RIGHT = 0x74  # BPF_ALU | BPF_RSH | BPF_K
_MULTIPLY = 0x24  # BPF_ALU | BPF_MUL | BPF_K
_XOR_X = 0xAC  # BPF_ALU | BPF_XOR | BPF_X
_MODULO = 0x94  # BPF_ALU | BPF_MOD | BPF_K
_A_TO_X = 0x07  # BPF_MISC | BPF_TAX
_SET_X = 0x01  # BPF_LDX | BPF_IMM
_RETURN_RESULT = 0x16  # BPF_RET | BPF_A

_NET = (
    0x100000000 - 0x100000
)  # SKF_NET_OFF: counted from the network header; the program begins at the payload
_IPV4_SOURCE = 12
_IPV6_SOURCE = 8
_IPV6_SIZE = 40
_MIX: Final = 0x9E3779B1  # an odd number with bits all over: neighbouring ports come to different slots

_Instruction = tuple[int, int, int, int]


def open_slotted(address: TcpAddress, slots: int, *, joins: bool = False) -> list[socket.socket]:
    """Binds one socket for each slot. What comes is queued there from now on.

    Args:
        address: with an IP literal as host. IPv6 is IPv6 only. With port 0 the kernel's choice for the first
            slot is used for all; `lbproc.net.sockaddr.bound_address` tells it.
        slots: at least 1.
        joins: sockets of our own are bound there, or where it overlaps. Else nobody may be.

    Raises:
        StartError: a socket cannot be bound; none is left open.
    """
    sockets: list[socket.socket] = []
    try:
        for _ in range(slots):
            sock = _make_socket(address)
            sockets.append(sock)
            # Alone, the first finds anybody else, whatever that one has set, and nobody slips in between.
            is_alone = len(sockets) == 1 and not joins
            if not is_alone:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(socket_address(address))
            if is_alone:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            address = TcpAddress(address.host, bound_address(sock).port)
        if slots == 1 and not joins:
            _make_group(address)
    except OSError as error:
        for sock in reversed(sockets):
            sock.close()
        raise bind_error(address, error, "udp ") from error
    return sockets


def open_first(
    address: TcpAddress,
    slots: int,
    *,
    attempts: int = 51,
    pause: Seconds = 0.1,
    sleep: Callable[[Seconds], None] = time.sleep,
) -> list[socket.socket]:
    """Binds where nobody is. A predecessor that is about to leave gets some time.

    Args:
        address: as in `open_slotted`.
        slots: likewise.
        attempts: how often to try, at least once.
        pause: seconds between two tries.
        sleep: waits that long; what it raises ends the tries.

    Raises:
        StartError: the address is in use to the end, or cannot be bound at all.
    """
    for attempt in itertools.count(1):
        try:
            return open_slotted(address, slots)
        except StartError as error:
            cause = error.__cause__
            is_busy = isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE
            if not is_busy or attempt == attempts:
                raise
        sleep(pause)
    raise AssertionError("counting never ends")


def steer(sock: socket.socket, live_slots: int) -> None:
    """Gives flows to the first slots only, each flow to one, by a hash of the client's address and port.

    It is one program for the whole SO_REUSEPORT group of the socket, and replaces the one before.

    Args:
        sock: any socket of the group.
        live_slots: how many slots, from the lowest, get datagrams; at least 1.
    """
    program = _program(sock.family == socket.AF_INET6, live_slots)
    octets = array.array("B", b"".join(_INSTRUCTION.pack(*instruction) for instruction in program))
    sock.setsockopt(
        socket.SOL_SOCKET,
        _SO_ATTACH_REUSEPORT_CBPF,
        struct.pack("@HP", len(program), octets.buffer_info()[0]),
    )


def _program(is_six: bool, live_slots: int) -> tuple[_Instruction, ...]:
    """Source address and source port, multiplied and folded, modulo the number of slots."""
    if is_six:
        words = [_NET + _IPV6_SOURCE + 4 * word for word in range(4)]
        header: tuple[_Instruction, ...] = ((_SET_X, 0, 0, _IPV6_SIZE),)
    else:
        words = [_NET + _IPV4_SOURCE]
        header = (  # its size is in words, in the lower half of its first byte
            (_LOAD_BYTE, 0, 0, _NET),
            (_AND, 0, 0, 0x0F),
            (_SHIFT_LEFT, 0, 0, 2),
            (_A_TO_X, 0, 0, 0),
        )
    mix: tuple[_Instruction, ...] = (
        (_MULTIPLY, 0, 0, _MIX),
        (_STORE, 0, 0, 0),
        (_SHIFT_RIGHT, 0, 0, 15),
        (_A_TO_X, 0, 0, 0),
        (_LOAD_MEMORY, 0, 0, 0),
        (_XOR_X, 0, 0, 0),
    )
    add: tuple[_Instruction, ...] = ((_A_TO_X, 0, 0, 0), (_LOAD_MEMORY, 0, 0, 1), (_XOR_X, 0, 0, 0))
    keep: tuple[_Instruction, ...] = ((_STORE, 0, 0, 1),)
    port: tuple[_Instruction, ...] = (*header, (_LOAD_HALF_AT_X, 0, 0, _NET))
    program: tuple[_Instruction, ...] = (*port, *mix, *keep)
    for word in words:
        program += ((_LOAD_WORD, 0, 0, word), *add, *mix, *keep)
    return (*program, (_SHIFT_RIGHT, 0, 0, 4), (_MODULO, 0, 0, live_slots), (_RETURN_RESULT, 0, 0, 0))


def _make_group(address: TcpAddress) -> None:
    """Lets the kernel make a group of the one socket there, by another one that joins it for a moment.

    `steer` needs a group, and must come before the sockets of further slots: a socket that was bound alone
    belongs to none. Nobody knows the address yet, so nothing comes to the other one.
    """
    with _make_socket(address) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(socket_address(address))


def _make_socket(address: TcpAddress) -> socket.socket:
    family = address_family(address)
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    is_any = address.host in _ANY
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if is_any:  # asked for before anything comes: what is queued without is never told
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    return sock
