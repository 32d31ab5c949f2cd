"""Secrets: where they come from, and that they never show.

Owns the one type that holds a secret. A secret stands in the file, in an environment variable or in a file
of its own; no message, ``repr`` or dump ever holds its value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from pydantic import PlainSerializer, PlainValidator, ValidationInfo

from lbproc.config.place import Surroundings, resolve_path, surroundings
from lbproc.config.wording import quote, toml_type, wrong

HIDDEN: Final = "***"
LONGEST: Final = 4096
_VARIABLE: Final = re.compile(r"[A-Z_][A-Z0-9_]{0,127}")
_RIGHT: Final = 'write { env = "NAME" }, { file = "PATH" } or a string'


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that never shows in messages, logs or dumps; only ``reveal`` gives it.

    Args:
        value: the secret itself.
        source: how it was named, ``("env", NAME)`` or ``("file", PATH)``; None if it stood in the file.
    """

    value: str = field(repr=False)
    source: tuple[Literal["env", "file"], str] | None = None

    def reveal(self) -> str:
        """The secret itself. Call it where it is compared or sent, and keep no copy."""
        return self.value

    def __str__(self) -> str:
        """Three stars."""
        return HIDDEN

    def __repr__(self) -> str:
        """Three stars in the name of the class."""
        return f"Secret({HIDDEN})"


def render_secret(secret: Secret) -> str | dict[str, str]:
    """How a secret is written for people: where it comes from, or three stars."""
    return HIDDEN if secret.source is None else {secret.source[0]: secret.source[1]}


def parse_secret(value: object, info: ValidationInfo) -> Secret:
    """A secret in the file, in the environment or in a file of its own. No message ever shows it."""
    match value:
        case str():
            secret = Secret(value)
        case dict():
            secret = fetch_secret(value, surroundings(info))
        case _:
            raise wrong(f"is {toml_type(value)}, not a secret", _RIGHT)
    check_secret(secret)
    if len(secret.value) > LONGEST or not all("!" <= char <= "~" for char in secret.value):
        raise wrong(
            "the secret holds characters that cannot be sent, or is too long",
            f"write 1 to {LONGEST} visible ASCII characters without spaces",
        )
    return secret


def fetch_secret(table: dict[str, object], around: Surroundings) -> Secret:
    """The secret that a table names, whatever it holds."""
    match table:
        case {"env": str(name), **rest} if not rest:
            return _secret_from_environment(name, around)
        case {"file": str(path), **rest} if not rest:
            return _secret_from_file(path, around)
        case _:
            raise wrong('is a table, but not { env = "NAME" } or { file = "PATH" }', _RIGHT)


def _secret_from_environment(name: str, around: Surroundings) -> Secret:
    """The secret that an environment variable holds."""
    if not _VARIABLE.fullmatch(name):
        # Whoever writes the secret itself here by mistake does not find it in a message.
        raise wrong(
            "names no environment variable", 'write its name in capitals, such as { env = "LBPROC_TOKEN" }'
        )
    if name not in around.environ:
        raise wrong(
            f"the environment variable {name} is not set",
            'set it, name another one, or write { file = "PATH" }',
        )
    return Secret(around.environ[name], ("env", name))


def _secret_from_file(path: str, around: Surroundings) -> Secret:
    """The secret that a file holds, without the line end after it."""
    whole = resolve_path(path, around)
    try:
        text = around.read_file(whole)
    except (OSError, ValueError) as error:
        reason = error.strerror or "it cannot be read" if isinstance(error, OSError) else str(error)
        raise wrong(
            f"the file {quote(str(whole))} gives no secret: {reason}",
            "name a readable text file that holds the secret and nothing else",
        ) from None
    return Secret(text.removesuffix("\n").removesuffix("\r"), ("file", str(whole)))


def check_secret(secret: Secret) -> None:
    """Refuses what stands for no secret, wherever it is sent. What may be sent is the business of the key."""
    if not secret.value:
        raise wrong("the secret is empty", 'write it there, or name another { env = "NAME" }')
    if secret.value == HIDDEN:
        raise wrong(
            "three stars stand for a hidden secret",
            'write the secret itself, or { env = "NAME" } to keep it out',
        )


SecretValue = Annotated[Secret, PlainValidator(parse_secret), PlainSerializer(render_secret)]
