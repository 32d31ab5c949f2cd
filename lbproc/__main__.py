"""``python -m lbproc`` is the command ``lbproc``."""

from __future__ import annotations

from lbproc.cli import main

if __name__ == "__main__":
    main(prog_name="lbproc")
