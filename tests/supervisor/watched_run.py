"""Runs lbproc, and writes down what its children import after they are forked.

A program of its own, started by a test with as little imported as the real one has::

    python -m tests.supervisor.watched_run CONFIG IMPORTS
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from lbproc.boot import ControllerBoot, WorkerBoot
from lbproc.config.load import load_config
from lbproc.controller import run_controller
from lbproc.supervisor.belongings import Entries
from lbproc.supervisor.start import run
from lbproc.worker import run_worker


class Watch:
    """Finds no module, and writes the name of each that is looked for."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        os.write(self.fd, f"{name}\n".encode())
        return None


def main(config_path: Path, imports: Path) -> int:
    watch = Watch(imports)

    def worker(boot: WorkerBoot) -> int:
        sys.meta_path.insert(0, watch)
        return run_worker(boot)

    def controller(boot: ControllerBoot) -> int:
        sys.meta_path.insert(0, watch)
        return run_controller(boot)

    return run(load_config(config_path, os.environ), config_path, entries=Entries(worker, controller))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
