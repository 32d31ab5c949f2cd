"""One thing that is wrong with a configuration, and the error that carries all of them.

Owns the form of the line a person reads, ``file:line: dotted.key: what is wrong; what would be right``, and
the order of the lines: by file, then by line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lbproc.config.wording import dotted
from lbproc.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lbproc.config.wording import KeyPath

MOST_SHOWN: Final = 500
"""More problems than these are counted, not shown: nobody reads further, and a hostile file makes many."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong at one place.

    Args:
        file: the file as the operator named it.
        line: the line in it, from 1; 0 if the file as a whole is meant.
        key: the path of the key; empty if no key is meant.
        what: what is wrong.
        right: what would be right.
    """

    file: str
    line: int
    key: KeyPath
    what: str
    right: str

    def __str__(self) -> str:
        """The line a person reads."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(filter(None, (place, dotted(self.key), f"{self.what}; {self.right}")))


class UnusableConfigError(ConfigError):
    """The configuration cannot be used. Carries the problems as values too, for ``--json``.

    Args:
        problems: at least one, in any order.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        ordered = sorted(set(problems), key=_order)
        self.found = tuple(ordered[:MOST_SHOWN])
        lines = [str(problem) for problem in self.found]
        if len(ordered) > MOST_SHOWN:
            lines.append(
                f"{ordered[0].file}: {len(ordered) - MOST_SHOWN} more problems; mend those above first"
            )
        super().__init__(tuple(lines))


def _order(problem: Problem) -> tuple[str, int, list[tuple[int, str]], str]:
    """By file, line and key, places in an array as numbers."""
    key = [(step, "") if isinstance(step, int) else (-1, step) for step in problem.key]
    return problem.file, problem.line, key, problem.what
