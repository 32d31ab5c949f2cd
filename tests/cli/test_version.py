from __future__ import annotations

import json
import platform

from click.testing import CliRunner

from lbproc import __version__
from lbproc.cli import main


def test_json_has_stable_keys() -> None:
    result = CliRunner().invoke(main, ["version", "--json"])
    assert result.exit_code == 0
    assert json.loads(result.output) == {"version": __version__, "python": platform.python_version()}
