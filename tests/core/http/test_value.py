"""Values that are cheap to make."""

from __future__ import annotations

import pytest

from lbproc.core.http.framing import Framing, FramingKind


def test_values_with_equal_fields_are_equal_and_have_one_hash() -> None:
    one, same, other = (Framing(FramingKind.LENGTH, length) for length in (1, 1, 2))
    assert one == same != other
    assert len({one, same, other}) == 2
    assert repr(other) == "Framing(kind=<FramingKind.LENGTH: 'length'>, length=2)"


def test_values_have_their_fields_and_no_others() -> None:
    with pytest.raises(AttributeError):
        Framing(FramingKind.LENGTH, 1).size = 2  # type: ignore[attr-defined]
