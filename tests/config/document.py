"""What the rules across keys find in a text, for tests of them."""

from __future__ import annotations

import tomllib
from pathlib import Path

from lbproc.config.crosscheck import crosscheck
from lbproc.config.pem_file import read_pem
from lbproc.config.place import Surroundings
from lbproc.config.positions import scan
from lbproc.config.source import Source


def found(text: str, base: Path = Path("/etc/lbproc")) -> list[str]:
    """One line each, without the file."""
    source = Source({}, base, "a.toml")
    source.add("a.toml", tomllib.loads(text), scan(text))
    problems = crosscheck(source, Surroundings(base=base, read_pem=read_pem))
    return sorted(str(problem).removeprefix("a.toml:") for problem in problems)
