"""The units in conf/: systemd itself reads them, and the service is well locked up."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

CONF = Path(__file__).parents[1] / "conf"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here"),
]


def installed(directory: Path) -> Path:
    """The units with a program that is there, and a type that a systemd before 253 knows."""
    for unit in CONF.glob("lbproc.*"):
        text = unit.read_text().replace("/opt/lbproc/bin/lbproc", "/bin/true")
        (directory / unit.name).write_text(text.replace("Type=notify-reload", "Type=notify"))
    return directory


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("name", ["lbproc.service", "lbproc.socket"])
def test_systemd_understands_every_line(name: str, tmp_path: Path) -> None:
    checked = analyze("verify", "--man=no", "--recursive-errors=no", str(installed(tmp_path) / name))
    assert name not in checked.stderr, checked.stderr


def test_the_service_is_locked_up(tmp_path: Path) -> None:
    rated = analyze("security", "--no-pager", "--offline=yes", str(installed(tmp_path) / "lbproc.service"))
    found = re.search(r"exposure level for lbproc.service: ([0-9.]+)", rated.stdout)
    if found is None:
        pytest.skip("this systemd-analyze rates no files")
    assert float(found[1]) < 2.0
