from __future__ import annotations

from lbproc.config.problem import MOST_SHOWN, Problem, UnusableConfigError
from lbproc.errors import ConfigError


def problem(file: str, line: int, *key: str | int) -> Problem:
    return Problem(file, line, key, "is wrong", "write it right")


def test_a_problem_is_one_line() -> None:
    assert str(problem("a.toml", 3, "pools", "web")) == "a.toml:3: pools.web: is wrong; write it right"
    assert str(problem("a.toml", 3)) == "a.toml:3: is wrong; write it right"
    assert str(problem("a.toml", 0)) == "a.toml: is wrong; write it right"


def test_problems_are_sorted_by_file_line_and_place_and_said_once() -> None:
    ordered = (
        problem("a.toml", 0),
        problem("a.toml", 2, "x", 2),
        problem("a.toml", 2, "x", 10),
        problem("a.toml", 10, "x"),
        problem("a.toml", 10, "x", 0),
        problem("b.toml", 1),
    )
    error = UnusableConfigError((*reversed(ordered), ordered[0]))
    assert isinstance(error, ConfigError)
    assert error.found == ordered
    assert error.problems == tuple(map(str, ordered))
    assert str(error) == "\n".join(error.problems)


def test_beyond_a_bound_problems_are_counted() -> None:
    error = UnusableConfigError([problem("a.toml", line) for line in range(1, MOST_SHOWN + 8)])
    assert len(error.found) == MOST_SHOWN
    assert error.problems[-1] == "a.toml: 7 more problems; mend those above first"
