"""What the keys of ``[limits.NAME]`` may be together, and with the listeners that name them.

Owns these rules; ``crosscheck`` applies them. They look at the merged document and pass over what is wrong in
itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbproc.config.wording import dotted, nearest, quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lbproc.config.document import Document
    from lbproc.config.problem import Problem
    from lbproc.config.wording import KeyPath

_MOST_NAMES_COMPARED = 50


def limit_rules(document: Document) -> Iterator[Problem]:
    """Every limit that is named is there, and limits something."""
    for name in document.listeners:
        yield from _limits_exist(document, name)
    for name, table in document.limits.items():
        path: KeyPath = ("limits", name)
        if not {"connections", "new_connections"} & table.keys():
            yield document.problem(
                path, "limits nothing", 'add connections = 50, or new_connections = "100/second"'
            )
        elif "burst" in table and "new_connections" not in table:
            yield document.problem(
                (*path, "burst"),
                "is of new_connections, which is not there",
                'add new_connections = "100/second", or leave it out',
            )


def _limits_exist(document: Document, listener: str) -> Iterator[Problem]:
    path: KeyPath = ("listeners", listener, "limits")
    given = document.listeners[listener].get("limits")
    named: list[tuple[KeyPath, object]] = (
        [((*path, place), name) for place, name in enumerate(given)]
        if isinstance(given, list)
        else [(path, given)]
    )
    known = tuple(document.limits)[:_MOST_NAMES_COMPARED]
    seen: set[str] = set()
    for where, name in named:
        if not isinstance(name, str):
            continue
        if name in seen:
            yield document.problem(where, f"{quote(name)} is there twice", "keep one of them")
        elif name not in document.limits:
            guess = nearest(name, known)
            add = f"add [{dotted(('limits', name))}] with connections = 50"
            right = f"did you mean {quote(guess)}?" if guess else add
            yield document.problem(where, f"there is no limit {quote(name)}", right)
        seen.add(name)
