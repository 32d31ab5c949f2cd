from __future__ import annotations

import ast
import re
from pathlib import Path

from lbproc.telemetry.events import Event, render_page

ROOT = Path(__file__).parents[2]


def test_the_page_is_current() -> None:
    page = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
    assert page == render_page(), "run: python -m lbproc.telemetry.events"


def test_names_and_fields_are_plain_words() -> None:
    for event in Event:
        for word in (event.text, *event.fields):
            assert re.fullmatch(r"[a-z][a-z0-9_]*", word)
        assert event.meaning.endswith(".")


def test_every_event_has_a_name_of_its_own() -> None:
    assert len(Event.__members__) == len(list(Event))


class Writes:
    """Where the program names events, and with which fields it writes them."""

    def __init__(self) -> None:
        self.named: set[str] = set()
        self.fields: list[tuple[str, str, str]] = []
        for path in sorted((ROOT / "lbproc").rglob("*.py")):
            if path != ROOT / "lbproc" / "telemetry" / "events.py":
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                    self.look_at(node, path)

    def look_at(self, node: ast.AST, path: Path) -> None:
        if name := event_named(node):
            self.named.add(name)
        if isinstance(node, ast.Call) and node.args and (name := event_named(node.args[0])):
            place = f"{path.relative_to(ROOT)}:{node.lineno}"
            self.fields += [(place, name, keyword.arg) for keyword in node.keywords if keyword.arg]


def event_named(node: ast.AST) -> str:
    """The event's name in the program, or nothing.

    The state machine of the supervisor is below the telemetry: it names events by their text, and those of
    the controller by those of a worker.
    """
    match node:
        case ast.Attribute(value=ast.Name(id="Event" | "LogEvent"), attr=name) if name.isupper():
            return name
        case ast.Constant(value=str(text)) if text.upper() in Event.__members__:
            return text.upper()
    return ""


def test_every_event_is_written_somewhere() -> None:
    named = Writes().named
    named |= {name.replace("WORKER_", "CONTROLLER_") for name in named}
    assert [event.text for event in Event if event.name not in named] == []


def test_events_are_written_with_the_fields_that_are_documented() -> None:
    surplus = [
        f"{place}: {name} has no field {field}"
        for place, name, field in Writes().fields
        if field not in Event[name].fields
    ]
    assert surplus == []
