"""From a path to a ``Config``, or to all that is wrong with it. What is only doubtful comes with it.

Owns the order of the steps: read and merge the files, apply the rules across keys, validate against the
model. The last two both run, so that everything is reported at once. The only place where the environment,
the files of secrets, those of certificates and keys, and the date are read.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import tomli_w
from pydantic import ValidationError

from lbproc.config.certified import today
from lbproc.config.crosscheck import crosscheck
from lbproc.config.document import Document
from lbproc.config.explain import explain
from lbproc.config.model import Config
from lbproc.config.pem_file import read_pem
from lbproc.config.place import Surroundings
from lbproc.config.positions import scan
from lbproc.config.problem import Problem, UnusableConfigError
from lbproc.config.show import effective
from lbproc.config.source import Source, read_source, shown
from lbproc.config.tls import TlsConfig
from lbproc.config.tls_rules import tls_rules
from lbproc.config.warnings import warnings

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE_NAME: Final = "lbproc.toml"
SYSTEM_FILE: Final = Path("/etc/lbproc") / FILE_NAME
_LARGEST_SECRET: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Checked:
    """A configuration that can be used.

    Args:
        config: itself.
        warnings: what of it should be looked at all the same, in the order of the file.
    """

    config: Config
    warnings: tuple[Problem, ...] = ()


def load_config(path: Path, environ: Mapping[str, str]) -> Config:
    """As `check_config`, for whom warnings are of no use."""
    return check_config(path, environ).config


def check_config(path: Path, environ: Mapping[str, str]) -> Checked:
    """Reads a file, or the files of a directory, and checks all of it.

    Args:
        path: a TOML file, or a directory of them that are merged in the order of their names.
        environ: where secrets written ``{ env = "NAME" }`` are looked up.

    Raises:
        UnusableConfigError: with every problem, by file and line.
    """
    source = read_source(path)
    # Rules and model look at the same bytes, and no file is read twice.
    around = Surroundings(source.base, environ, read_file=_read_secret, read_pem=cache(read_pem))
    problems = crosscheck(source, around)
    try:
        config = Config.model_validate(source.document, context=around)
    except ValidationError as error:
        problems += explain(error.errors(include_url=False), source)
    if problems:
        raise UnusableConfigError(problems)
    return Checked(config, tuple(source.problem(*found) for found in warnings(config, today())))


def renew_config(config: Config) -> Checked:
    """The same configuration with what stands now in the files of its listeners' certificates and keys.

    Only of listeners that say ``watch = true``. No file of the configuration itself is read.

    Raises:
        UnusableConfigError: they cannot be used, or not together.
    """
    tables = effective(config)["listeners"]
    written = {
        name: {"tls": tables[name]["tls"]}
        for name, listener in config.listeners.items()
        if listener.tls is not None and listener.tls.watch
    }
    source = _source_of({"listeners": written})
    around = Surroundings(read_pem=cache(read_pem))
    listeners = dict(config.listeners)
    problems = list(tls_rules(Document(source, around)))
    for name, table in source.document["listeners"].items():
        try:
            tls = TlsConfig.model_validate(table["tls"], context=around)
        except ValidationError as error:
            for found in error.errors(include_url=False):
                problems += explain([{**found, "loc": ("listeners", name, "tls", *found["loc"])}], source)
        else:
            listeners[name] = listeners[name].model_copy(update={"tls": tls})
    if problems:
        raise UnusableConfigError(Problem(one.file, 0, one.key, one.what, one.right) for one in problems)
    renewed = config.model_copy(update={"listeners": listeners})
    doubts = (doubt for doubt in warnings(renewed, today()) if doubt[0][:1] == ("listeners",))
    return Checked(
        renewed, tuple(Problem(source.first, 0, *doubt) for doubt in doubts if doubt[0][1] in written)
    )


def _source_of(document: dict[str, Any]) -> Source:
    """A document that no file holds, as if one did, so that its keys can be spoken of."""
    text = tomli_w.dumps(document)
    source = Source({}, Path("/"), "the certificates")
    source.add(source.first, tomllib.loads(text), scan(text))
    return source


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
