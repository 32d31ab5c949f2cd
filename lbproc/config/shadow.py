"""Routes that can never be taken, because an earlier one takes all their requests.

Owns one question about two ``match`` tables: does the first hold whenever the second does? The answer is
never wrongly yes; it may be no where only a look at several earlier routes together would tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lbproc.config.model import MatchConfig

MOST_COMPARED = 500
"""Routes after these are compared with nothing: the work grows with the square of their number."""


def shadowed(matches: Sequence[MatchConfig | None]) -> list[tuple[int, int]]:
    """Pairs of places: a route that is never taken, and the first one that takes all its requests.

    Args:
        matches: the conditions of the routes in their order; None where they could not be understood.
    """
    pairs: list[tuple[int, int]] = []
    for later, match in enumerate(matches[:MOST_COMPARED]):
        for earlier, taken in enumerate(matches[:later]):
            if match is not None and taken is not None and covers(taken, match):
                pairs.append((later, earlier))
                break
    return pairs


def covers(wide: MatchConfig, narrow: MatchConfig) -> bool:
    """Whether every request that ``narrow`` matches is matched by ``wide`` too."""
    return (
        _hosts_cover(wide.host, narrow.host)
        and _hosts_cover(wide.sni, narrow.sni)
        and _words_cover(wide.method, narrow.method)
        and _words_cover(wide.alpn, narrow.alpn)
        and _paths_cover(wide, narrow)
    )


def _hosts_cover(wide: Sequence[str], narrow: Sequence[str]) -> bool:
    """Whether some hosts hold whenever others do."""
    if not wide:
        return True
    return bool(narrow) and all(any(_host_covers(w, n) for w in wide) for n in narrow)


def _host_covers(wide: str, narrow: str) -> bool:
    """Whether one host pattern takes all that another takes. A star is any depth below, not the name."""
    return wide == narrow or (
        wide.startswith("*.") and narrow.removeprefix("*").endswith(wide[1:]) and narrow != wide[2:]
    )


def _words_cover(wide: Sequence[str], narrow: Sequence[str]) -> bool:
    """Whether some methods, or protocols, hold whenever others do."""
    return not wide or (bool(narrow) and set(narrow) <= set(wide))


def _paths_cover(wide: MatchConfig, narrow: MatchConfig) -> bool:
    """Whether both path conditions of ``wide`` hold whenever those of ``narrow`` do."""
    by_path = bool(narrow.path) and set(narrow.path) <= set(wide.path)
    by_prefix = any(
        bool(known) and all(any(_is_below(path, prefix) for prefix in wide.path_prefix) for path in known)
        for known in (narrow.path, narrow.path_prefix)
    )
    return (not wide.path or by_path) and (not wide.path_prefix or by_prefix)


def _is_below(path: str, prefix: str) -> bool:
    """Whether a path begins with a prefix, by whole segments."""
    return path == prefix or path.startswith(prefix.removesuffix("/") + "/")
