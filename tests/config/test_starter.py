from __future__ import annotations

import re
from pathlib import Path

from lbproc.config.load import load_config
from lbproc.config.starter import STARTER


def test_the_starter_is_right_as_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "lbproc.toml"
    file.write_text(STARTER)
    config = load_config(file, {})
    assert len(config.pools["web"].backends) == 2


def test_what_the_starter_holds_in_comments_is_right_too(tmp_path: Path) -> None:
    text = re.sub(r"^# (?=\[|[a-z_]+ = )", "", STARTER, flags=re.MULTILINE)
    assert text.count("\n[") > STARTER.count("\n[")
    file = tmp_path / "lbproc.toml"
    file.write_text(text + '[pools.api]\nbackends = ["127.0.0.1:9003"]\n')
    config = load_config(file, {"LBPROC_ADMIN_TOKEN": "t"})
    assert config.listeners["web"].routes[0].name == "api"


def test_the_starter_fits_a_terminal() -> None:
    assert max(map(len, STARTER.splitlines())) <= 110
