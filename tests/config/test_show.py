from __future__ import annotations

import json
import tomllib
from pathlib import Path

from lbproc.config.load import load_config
from lbproc.config.show import effective, render_config
from tests.config.complete import COMPLETE, ENVIRON


def test_what_is_shown_loads_as_the_same_configuration(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(COMPLETE)
    config = load_config(file, ENVIRON)
    file.write_text(render_config(config))
    assert load_config(file, ENVIRON) == config


def test_defaults_are_shown_and_what_is_absent_is_not(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(
        '[listeners.web]\nbind = "127.0.0.1:80"\n'
        '[[listeners.web.routes]]\nmatch.method = "GET"\npool = "web"\n'
        '[pools.web]\nbackends = ["a:1"]\n'
    )
    config = load_config(file, {})
    shown = tomllib.loads(render_config(config))
    assert shown == effective(config) == json.loads(json.dumps(effective(config)))
    assert shown["listeners"]["web"]["routes"] == [{"name": "0", "match": {"method": ["GET"]}, "pool": "web"}]
    assert shown["runtime"]["drain_timeout"] == "10m"
    assert "admin" not in shown
    assert "user" not in shown["runtime"]
    file.write_text(render_config(config))
    assert load_config(file, {}) == config


def test_no_secret_is_shown_and_what_is_shown_instead_is_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(COMPLETE.replace('{ env = "LBPROC_ADMIN_TOKEN" }', '"hush-puppy"'))
    shown = render_config(load_config(file, ENVIRON))
    assert "hush-puppy" not in shown
    assert tomllib.loads(shown)["admin"]["token"] == "***"
    file.write_text(COMPLETE)
    shown = render_config(load_config(file, ENVIRON))
    assert tomllib.loads(shown)["admin"]["token"] == {"env": "LBPROC_ADMIN_TOKEN"}
    headers = tomllib.loads(shown)["pools"]["web"]["health"]["headers"]
    assert headers == {"X-Probe": "1", "Authorization": {"env": "LBPROC_PROBE_LOGIN"}}
