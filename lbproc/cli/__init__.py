"""The command line: one click group, ``main``, whose commands are imported only when they are called.

Owns what a person types and reads: options, texts, exit statuses. Decides nothing about balancing. Importing
this package imports click and nothing else that is slow, so that ``lbproc --help`` answers at once.

Exit statuses: 0 done; 1 refused or failed; 2 wrong usage, or a configuration that cannot be used.
"""

from __future__ import annotations

from lbproc.cli.group import main

__all__ = ["main"]
