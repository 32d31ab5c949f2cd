"""``scripts/setup`` on machines that lack something: it says what is missing and how to get it.

The machine is a directory of small programs that stands alone on the PATH, so that nothing is installed.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = ("bash", "cat", "cut", "dirname", "sha256sum")
PYTHON = """\
case "$*" in
*version_info*) exit {too_old} ;;
--version) echo Python 3.9.2 ;;
*ensurepip*) exit {no_venv} ;;
*include*) echo {include} ;;
esac
"""
VENV_PYTHON = """\
case "$*" in
*"pip install"*) echo "CC=$CC" >>pip-runs; exit {pip_fails} ;;
esac
"""


class Machine:
    """A machine that has everything."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.programs = root / "programs"
        for file in ("scripts/setup", "pyproject.toml", "lbproc/shm/_atomics.c"):
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, root / file)
        self.programs.mkdir()
        for tool in TOOLS:
            path = shutil.which(tool)
            assert path is not None
            (self.programs / tool).symlink_to(path)
        self.header = root / "include" / "Python.h"
        self.header.parent.mkdir()
        self.header.touch()
        self.has_python()
        self.has_venv_python()
        self.has("cc", "")

    def has(self, name: str, script: str) -> None:
        """Puts a program there."""
        path = self.programs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!{self.programs}/bash\n{script}")
        path.chmod(0o755)

    def has_python(self, *, too_old: int = 0, no_venv: int = 0) -> None:
        """Puts a Python there."""
        self.has("python3", PYTHON.format(too_old=too_old, no_venv=no_venv, include=self.header.parent))

    def has_venv_python(self, *, pip_fails: int = 0) -> None:
        """Puts a Python into the virtual environment."""
        self.has(str(self.root / ".venv/bin/python"), VENV_PYTHON.format(pip_fails=pip_fails))

    def lacks(self, name: str) -> None:
        """Takes a program away."""
        (self.programs / name).unlink()

    def set_up(self, **environ: str) -> str | None:
        """Runs the script. Returns its message, ``None`` when it is content."""
        done = subprocess.run(
            [self.programs / "bash", "-c", ". scripts/setup"],
            cwd=self.root,
            env={"PATH": str(self.programs), **environ},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        said = done.stderr.replace("Setting up .venv (once; about a minute)\n", "")
        assert (done.returncode != 0) == bool(said)
        assert done.stdout == ""
        return said or None

    @property
    def pip_runs(self) -> list[str]:
        """The compiler that each run of pip was given."""
        path = self.root / "pip-runs"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_sets_up_once_and_again_when_something_has_changed(machine: Machine) -> None:
    assert machine.set_up() is None
    assert machine.set_up() is None
    assert len(machine.pip_runs) == 1
    (machine.root / "lbproc/shm/_atomics.c").write_text("changed")
    assert machine.set_up() is None
    assert len(machine.pip_runs) == 2


def test_python_is_missing(machine: Machine) -> None:
    machine.lacks("python3")
    assert machine.set_up() == (
        "lbproc: python3 is missing; install it: apt-get install python3 python3-venv python3-dev\n"
    )


def test_python_is_too_old(machine: Machine) -> None:
    machine.has_python(too_old=1)
    assert machine.set_up() == (
        "lbproc: Python 3.9.2 is too old: lbproc needs Python 3.11 or newer; set LBPROC_PYTHON to one\n"
    )


def test_another_python_is_used_when_named(machine: Machine) -> None:
    machine.has_python()
    (machine.programs / "python3").rename(machine.programs / "python3.13")
    assert machine.set_up(LBPROC_PYTHON="python3.13") is None


def test_venv_is_missing(machine: Machine) -> None:
    machine.has_python(no_venv=1)
    assert machine.set_up() == (
        "lbproc: the Python venv module is missing; install it: apt-get install python3-venv\n"
    )


def test_compiler_is_missing(machine: Machine) -> None:
    machine.lacks("cc")
    assert machine.set_up() == (
        "lbproc: a C compiler is missing; install it: apt-get install gcc libc6-dev\n"
    )


@pytest.mark.parametrize("name", ["cc", "gcc", "clang"])
def test_any_compiler_does_and_pip_uses_it(machine: Machine, name: str) -> None:
    machine.lacks("cc")
    machine.has(name, "")
    assert machine.set_up(**({"CC": "clang"} if name == "clang" else {})) is None
    assert machine.pip_runs == [f"CC={machine.programs / name}"]


def test_python_headers_are_missing(machine: Machine) -> None:
    machine.header.unlink()
    assert machine.set_up() == (
        f"lbproc: the Python headers are missing ({machine.header}); "
        "install them: apt-get install python3-dev\n"
    )


def test_headers_of_the_c_library_are_missing(machine: Machine) -> None:
    machine.has("cc", "exit 1")
    assert machine.set_up() == (
        "lbproc: the C library's headers are missing; install them: apt-get install libc6-dev\n"
    )


def test_pip_fails(machine: Machine) -> None:
    machine.has_venv_python(pip_fails=1)
    assert machine.set_up() == ("lbproc: installing the Python packages failed; the reason stands above\n")
    machine.has_venv_python()
    assert machine.set_up() is None
