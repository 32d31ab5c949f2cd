"""From a path to a ``Config``, or to all that is wrong with it.

Owns the order of the steps: read and merge the files, apply the rules across keys, validate against the
model. The last two both run, so that everything is reported at once. The only place where the environment
and the files of secrets are read.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from lbproc.config.crosscheck import crosscheck
from lbproc.config.explain import explain
from lbproc.config.model import Config
from lbproc.config.place import Surroundings
from lbproc.config.problem import Problem, UnusableConfigError
from lbproc.config.source import read_source, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE_NAME: Final = "lbproc.toml"
SYSTEM_FILE: Final = Path("/etc/lbproc") / FILE_NAME
_LARGEST_SECRET: Final = 64 * 1024


def load_config(path: Path, environ: Mapping[str, str]) -> Config:
    """Reads a file, or the files of a directory, and checks all of it.

    Args:
        path: a TOML file, or a directory of them that are merged in the order of their names.
        environ: where secrets written ``{ env = "NAME" }`` are looked up.

    Raises:
        UnusableConfigError: with every problem, by file and line.
    """
    source = read_source(path)
    around = Surroundings(base=source.base, environ=environ, read_file=_read_secret)
    problems = crosscheck(source, around)
    try:
        config = Config.model_validate(source.document, context=around)
    except ValidationError as error:
        problems += explain(error.errors(include_url=False), source)
    if problems:
        raise UnusableConfigError(problems)
    return config


def find_config(environ: Mapping[str, str], cwd: Path, system: Path = SYSTEM_FILE) -> Path:
    """The configuration to use when none is named: ``lbproc.toml`` here, else the one of the system.

    Args:
        environ: names no configuration; it is a part of the call as in every other look-up.
        cwd: the working directory.
        system: the file of the system.

    Returns:
        A path that counts from the working directory, as one would name the file there.

    Raises:
        UnusableConfigError: there is neither.
    """
    if _is_there(cwd / FILE_NAME):
        return Path(FILE_NAME)
    if _is_there(system):
        return system
    what = f"there is no {FILE_NAME} here, and no {system}"
    raise UnusableConfigError(
        [Problem(shown(cwd), 0, (), what, 'name one with -c FILE, or write a first one with "lbproc init"')]
    )


def _is_there(path: Path) -> bool:
    """Whether there is such a file. One that cannot be looked at is there: reading it says why not."""
    try:
        return path.exists()
    except OSError:
        return True


def _read_secret(path: Path) -> str:
    """The text of a secret's file. Errors say nothing of what is in it.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no text, or too large.
    """
    with path.open("rb") as stream:
        content = stream.read(_LARGEST_SECRET + 1)
    if len(content) > _LARGEST_SECRET:
        raise ValueError("it is larger than 64 KiB")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
