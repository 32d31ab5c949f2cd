# ruff: noqa: E501  messages stand here word for word, one on a line
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from lbproc.config.place import Surroundings
from lbproc.config.secret import Secret, SecretValue
from tests.config.refusal import accepted, refusal

SECRET: TypeAdapter[Any] = TypeAdapter(SecretValue)
HUSH = "hush-puppy"


def read(path: Path) -> str:
    """Stands for the loader: one file that can be read, and what happens to others."""
    match path.name:
        case "token":
            return HUSH + "\n"
        case "dos":
            return HUSH + "\r\n"
        case "binary":
            raise ValueError("it is not UTF-8 text")
        case "odd":
            raise OSError
        case _:
            raise FileNotFoundError(2, "No such file or directory")


AROUND = Surroundings(
    base=Path("/etc/lbproc"), environ={"TOKEN": HUSH, "EMPTY": "", "SPACED": "a b"}, read_file=read
)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (HUSH, "***"),
        ({"env": "TOKEN"}, {"env": "TOKEN"}),
        ({"file": "token"}, {"file": "/etc/lbproc/token"}),
        ({"file": "/run/dos"}, {"file": "/run/dos"}),
    ],
)
def test_a_secret_is_revealed_only_when_asked_for(value: object, shown: object) -> None:
    secret = accepted(SECRET, value, AROUND)
    assert secret.reveal() == HUSH
    assert SECRET.dump_python(secret) == shown
    assert f"{secret} {secret!r} {[secret]}" == "*** Secret(***) [Secret(***)]"
    assert secret == Secret(HUSH, secret.source)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1, 'is an integer, not a secret; write { env = "NAME" }, { file = "PATH" } or a string'),
        ({}, 'is a table, but not { env = "NAME" } or { file = "PATH" }; write { env = "NAME" }, { file = "PATH" } or a string'),
        ({"env": 1}, 'is a table, but not { env = "NAME" } or { file = "PATH" }; write { env = "NAME" }, { file = "PATH" } or a string'),
        ({"env": "TOKEN", "file": "token"}, 'is a table, but not { env = "NAME" } or { file = "PATH" }; write { env = "NAME" }, { file = "PATH" } or a string'),
        ({"file": "token", "x": 1}, 'is a table, but not { env = "NAME" } or { file = "PATH" }; write { env = "NAME" }, { file = "PATH" } or a string'),
        ({"env": "MISSING"}, 'the environment variable MISSING is not set; set it, name another one, or write { file = "PATH" }'),
        ({"env": HUSH}, 'names no environment variable; write its name in capitals, such as { env = "LBPROC_TOKEN" }'),
        ({"env": "EMPTY"}, 'the secret is empty; write it there, or name another { env = "NAME" }'),
        ({"env": "SPACED"}, "the secret holds characters that cannot be sent, or is too long; write 1 to 4096 visible ASCII characters without spaces"),
        ({"file": "gone"}, 'the file "/etc/lbproc/gone" gives no secret: No such file or directory; name a readable text file that holds the secret and nothing else'),
        ({"file": "binary"}, 'the file "/etc/lbproc/binary" gives no secret: it is not UTF-8 text; name a readable text file that holds the secret and nothing else'),
        ({"file": "odd"}, 'the file "/etc/lbproc/odd" gives no secret: it cannot be read; name a readable text file that holds the secret and nothing else'),
        ("", 'the secret is empty; write it there, or name another { env = "NAME" }'),
        ("***", 'three stars stand for a hidden secret; write the secret itself, or { env = "NAME" } to keep it out'),
        (HUSH + "\n", "the secret holds characters that cannot be sent, or is too long; write 1 to 4096 visible ASCII characters without spaces"),
        (HUSH * 500, "the secret holds characters that cannot be sent, or is too long; write 1 to 4096 visible ASCII characters without spaces"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_secret_is_said_without_it(value: object, message: str) -> None:
    assert refusal(SECRET, value, AROUND) == message
    assert HUSH not in message
