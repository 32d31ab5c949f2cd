from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbproc.units import (
    Rate,
    UnitError,
    parse_duration,
    parse_rate,
    parse_size,
    render_duration,
    render_rate,
    render_size,
)

UNHURRIED = settings(deadline=None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30.0),
        ("500ms", 0.5),
        ("1.5s", 1.5),
        ("10m", 600.0),
        ("1h", 3600.0),
        ("1d", 86_400.0),
        ("1h30m", 5400.0),
        ("1d1h1m1s1ms", 90_061.001),
        ("0s", 0.0),
        ("0.5d", 43_200.0),
    ],
)
def test_a_duration_is_read_in_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("10", 'write "10s" for seconds'),
        ("1.5", 'write "1.5s" for seconds'),
        ("", 'such as "30s"'),
        ("soon", 'such as "30s"'),
        ("-5s", 'such as "30s"'),
        ("+5s", 'such as "30s"'),
        ("5 s", 'such as "30s"'),
        ("5S", 'such as "30s"'),
        ("1e3s", 'such as "30s"'),
        (".5s", 'such as "30s"'),
        ("5us", 'such as "30s"'),
        ("٣s", 'such as "30s"'),
        ("5s\n", 'such as "30s"'),
        ("1m1h", "the largest first"),
        ("1s1s", "each unit once"),
        ("0.5ms", "whole milliseconds"),
        ("9" * 100, 'such as "30s"'),
        ("9" * 100 + "s", 'such as "30s"'),
    ],
)
def test_what_is_no_duration_is_told_what_would_be_one(text: str, remedy: str) -> None:
    with pytest.raises(UnitError) as caught:
        parse_duration(text)
    assert remedy in caught.value.right
    assert str(caught.value) == f"{caught.value.what}; {caught.value.right}"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0s"), (0.25, "250ms"), (1.5, "1500ms"), (75.0, "75s"), (5400.0, "90m"), (86_400.0, "1d")],
)
def test_a_duration_is_written_in_its_largest_exact_unit(seconds: float, text: str) -> None:
    assert render_duration(seconds) == text


@UNHURRIED
@given(st.integers(0, 10**13))
def test_a_duration_that_is_written_reads_the_same(milliseconds: int) -> None:
    assert parse_duration(render_duration(milliseconds / 1000)) == milliseconds / 1000


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0B", 0),
        ("512B", 512),
        ("32KiB", 32_768),
        ("1.5GiB", 1_610_612_736),
        ("1TiB", 1024**4),
        ("10MB", 10_000_000),
        ("10kB", 10_000),
        ("10KB", 10_000),
        ("1TB", 10**12),
    ],
)
def test_a_size_is_read_in_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("1024", 'write "1024B"'),
        ("32K", 'write "32KiB"'),
        ("32k", 'write "32KiB"'),
        ("1.5g", 'write "1.5GiB"'),
        ("16mb", 'write "16MiB"'),
        ("", 'such as "16MiB"'),
        ("lots", 'such as "16MiB"'),
        ("-1KiB", 'such as "16MiB"'),
        ("1PiB", 'such as "16MiB"'),
        ("1KiB\n", 'such as "16MiB"'),
        ("1" * 100, 'such as "16MiB"'),
        ("1.5B", "whole number"),
    ],
)
def test_what_is_no_size_is_told_what_would_be_one(text: str, remedy: str) -> None:
    with pytest.raises(UnitError) as caught:
        parse_size(text)
    assert remedy in caught.value.right


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0B"), (1025, "1025B"), (32_768, "32KiB"), (10_000_000, "10MB"), (1024**3, "1GiB")]
)
def test_a_size_is_written_in_its_largest_exact_unit(size: int, text: str) -> None:
    assert render_size(size) == text


@UNHURRIED
@given(st.integers(0, 2**62))
def test_a_size_that_is_written_reads_the_same(size: int) -> None:
    assert parse_size(render_size(size)) == size


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100/second", Rate(100, 1)),
        ("1000/minute", Rate(1000, 60)),
        ("100k/minute", Rate(100_000, 60)),
        ("2M/d", Rate(2_000_000, 86_400)),
        ("1/h", Rate(1, 3600)),
        ("5/s", Rate(5, 1)),
        ("5/m", Rate(5, 60)),
        ("5/day", Rate(5, 86_400)),
    ],
)
def test_a_rate_is_read_as_so_many_in_so_long(text: str, rate: Rate) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text",
    [
        "",
        "100",
        "100/",
        "/second",
        "100/week",
        "0/second",
        "1.5/second",
        "-1/second",
        "100 / second",
        "1G/s",
        "9" * 50,
    ],
)
def test_what_is_no_rate_is_told_what_would_be_one(text: str) -> None:
    with pytest.raises(UnitError, match=r'such as "\d+/'):
        parse_rate(text)


@UNHURRIED
@given(st.integers(1, 10**15), st.sampled_from([1, 60, 3600, 86_400]))
def test_a_rate_that_is_written_reads_the_same(amount: int, period: int) -> None:
    assert parse_rate(str(Rate(amount, period))) == Rate(amount, period)


@pytest.mark.parametrize("text", ["1/second", "1001/minute", "100k/hour", "2M/day"])
def test_a_rate_is_written_with_its_largest_multiple(text: str) -> None:
    assert render_rate(parse_rate(text)) == text


def test_a_rate_over_an_odd_period_has_no_text() -> None:
    with pytest.raises(ValueError, match="per second, minute, hour or day"):
        render_rate(Rate(1, 7))


@UNHURRIED
@given(st.text(max_size=50))
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_duration, parse_size, parse_rate):
        with suppress(UnitError):
            assert parse(text)
