from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from lbproc.shm.draw import draw
from lbproc.shm.layout import SECTIONS

PAGE = Path(__file__).parents[2] / "docs" / "shm-layout.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == draw(), "run: python -m lbproc.shm.draw > docs/shm-layout.md"


def test_every_field_is_drawn() -> None:
    page = draw()
    for section in SECTIONS:
        assert f"## {section.name}\n" in page
        for field in section.fields:
            assert f"| {field.name} |" in page


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_the_module_prints_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_module("lbproc.shm.draw", run_name="__main__")
    assert capsys.readouterr().out == draw()
