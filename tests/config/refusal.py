"""What a validator says of a value, in one line, for tests of single notations."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from lbproc.config.place import Surroundings


def accepted(kind: TypeAdapter[Any], value: object, around: Surroundings | None = None) -> Any:
    """What a type makes of a value."""
    return kind.validate_python(value, context=around)


def refusal(kind: TypeAdapter[Any], value: object, around: Surroundings | None = None) -> str:
    """The message of the one error that a type finds in a value."""
    with pytest.raises(ValidationError) as caught:
        kind.validate_python(value, context=around)
    (error,) = caught.value.errors()
    return error["msg"]
