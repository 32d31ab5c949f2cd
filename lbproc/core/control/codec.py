"""Control messages to bytes and back: four bytes of length, big endian, then msgpack of ``[name, fields]``.

Sans-io and used by everybody who speaks the control protocol: supervisor, children, command line. What
comes in is not trusted: a length above the bound, bytes that are not msgpack, unknown names, missing or
surplus fields and values of a wrong type all raise `ControlError`, and never more memory is held than the
bound and one read. A decoder that raised is done with: what follows a broken message has no meaning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from types import MappingProxyType, UnionType
from typing import get_args, get_origin, get_type_hints

import msgpack

from lbproc.core.control.messages import MESSAGES, Message
from lbproc.errors import ControlError

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""The longest message anybody sends: the status of thousands of backends fits many times."""

_LENGTH_BYTES = 4

_FIELD_TYPES = MappingProxyType({name: get_type_hints(kind) for name, kind in MESSAGES.items()})


def encode(message: Message) -> bytes:
    """The message as it travels.

    Raises:
        ControlError: the message is longer than `MAX_MESSAGE_BYTES`.
    """
    values = {field.name: getattr(message, field.name) for field in fields(message)}
    payload: bytes = msgpack.packb([type(message).__name__, values], unicode_errors="replace")
    if len(payload) > MAX_MESSAGE_BYTES:
        raise ControlError(f"a control message of {len(payload)} bytes is above {MAX_MESSAGE_BYTES}")
    return len(payload).to_bytes(_LENGTH_BYTES, "big") + payload


class Decoder:
    """Takes bytes in any portions, gives messages.

    Args:
        max_bytes: the longest message that is accepted.
    """

    __slots__ = ("_buffer", "_max_bytes")

    def __init__(self, max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._buffer = bytearray()
        self._max_bytes = max_bytes

    def feed(self, data: bytes) -> None:
        """Adds what was read."""
        self._buffer += data

    @property
    def is_empty(self) -> bool:
        """Whether no part of a message is waiting for its rest."""
        return not self._buffer

    def next_message(self) -> Message | None:
        """The next whole message, or None when more bytes are needed.

        Raises:
            ControlError: what came in is no message; the connection cannot go on.
        """
        if len(self._buffer) < _LENGTH_BYTES:
            return None
        length = int.from_bytes(self._buffer[:_LENGTH_BYTES], "big")
        if length > self._max_bytes:
            raise ControlError(f"a control message of {length} bytes is above {self._max_bytes}")
        end = _LENGTH_BYTES + length
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[_LENGTH_BYTES:end])
        del self._buffer[:end]
        return _parse_payload(payload)


def _parse_payload(payload: bytes) -> Message:
    try:
        # use_list=True and strict map keys are msgpack's defaults; lengths are bounded by the payload's size
        content: object = msgpack.unpackb(payload)
    except (ValueError, RecursionError, msgpack.UnpackException) as error:
        raise ControlError(f"a control message is not msgpack: {type(error).__name__}") from None
    match content:
        case [str(name), dict(values)] if name in MESSAGES:
            pass
        case _:
            raise ControlError("a control message is not [known name, fields]")
    types = _FIELD_TYPES[name]
    if values.keys() != types.keys():
        raise ControlError(f"the control message {name} has fields other than {', '.join(types) or 'none'}")
    checked = {key: _checked(name, key, value, types[key]) for key, value in values.items()}
    kind: Callable[..., Message] = MESSAGES[name]
    return kind(**checked)


def _checked(name: str, key: str, value: object, expected: object) -> object:
    """The value as the annotation has it (lists become tuples where it says tuple)."""
    try:
        return _conform(value, expected)
    except TypeError:
        raise ControlError(f"the field {key} of the control message {name} has a wrong type") from None


def _conform(value: object, expected: object) -> object:
    origin = get_origin(expected)
    if expected is object:
        return value
    if origin is UnionType:
        return _conform_union(value, get_args(expected))
    if origin is dict and isinstance(value, dict):
        key_type, value_type = get_args(expected)
        return {_conform(key, key_type): _conform(item, value_type) for key, item in value.items()}
    if origin is list and isinstance(value, list):
        (item_type,) = get_args(expected)
        return [_conform(item, item_type) for item in value]
    if origin is tuple and isinstance(value, list):
        return _conform_tuple(value, get_args(expected))
    # exact: a bool is an int to isinstance, and not one to us
    if type(value) is expected:
        return value
    raise TypeError


def _conform_tuple(values: list[object], item_types: tuple[object, ...]) -> tuple[object, ...]:
    if item_types[-1] is Ellipsis:
        return tuple(_conform(value, item_types[0]) for value in values)
    if len(values) != len(item_types):
        raise TypeError
    return tuple(_conform(value, expected) for value, expected in zip(values, item_types, strict=True))


def _conform_union(value: object, kinds: tuple[object, ...]) -> object:
    for kind in kinds:
        try:
            return _conform(value, kind)
        except TypeError:
            continue
    raise TypeError
