"""The error tree: everything lbproc raises on purpose that a person may read.

A message says what is wrong and what to do next; it never carries a secret. Whatever is not in this tree is a
defect of lbproc and keeps its traceback.
"""

from __future__ import annotations


class LbprocError(Exception):
    """Base of all errors that the person running lbproc can cause and mend."""


class ConfigError(LbprocError):
    """The configuration cannot be used. Carries every problem that was found, not the first.

    Args:
        problems: one line each, ``file:line: dotted.key: what is wrong; what would be right``.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class StartError(LbprocError):
    """lbproc cannot start here: an address in use, a limit too low, a missing right."""


class CapacityError(LbprocError):
    """The shared table has no room left for what was asked; names the ``[runtime]`` key that gives more."""


class ControlError(LbprocError):
    """A command could not be carried out by the running lbproc, or none is running."""
