from __future__ import annotations

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
