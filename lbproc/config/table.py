"""What all tables of the model have in common, and the validators that many of their fields are made of.

Owns no key. ``model`` and the modules of its larger tables build on it.
"""

from __future__ import annotations

from functools import partial

from pydantic import BaseModel, BeforeValidator, ConfigDict

from lbproc.config.values import parse_choice, parse_whole
from lbproc.config.wording import toml_type, wrong


class Table(BaseModel):
    """Base of all tables: unknown keys are errors, values cannot be changed, no message quotes its input."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=False)


def whole(least: int, most: int, example: int) -> BeforeValidator:
    """The validator of a whole number within bounds; what it gives is an ``int``."""
    return BeforeValidator(partial(parse_whole, least=least, most=most, example=example))


def choice(noun: str, *choices: str) -> BeforeValidator:
    """The validator of one of a few words."""
    return BeforeValidator(partial(parse_choice, noun=noun, choices=choices))


def strings(example: str, *, least: int = 1) -> BeforeValidator:
    """The validator of a list of strings, which may be one string alone."""

    def as_tuple(value: object) -> object:
        if isinstance(value, str):
            return (value,)
        if not isinstance(value, list | tuple):
            raise wrong(
                f"is {toml_type(value)}, not a string or a list of strings",
                f'write a string such as "{example}", or a list of them',
            )
        if len(value) < least:
            raise wrong(
                "is an empty list", f'write at least one string such as "{example}", or leave out the key'
            )
        return tuple(value)

    return BeforeValidator(as_tuple)
