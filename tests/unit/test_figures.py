"""How numbers, times, bytes and curves are written for people."""

from __future__ import annotations

import pytest

from penstock_server.figures import bar, clock_time, duration, size, sparkline


def test_a_bar_gives_everything_that_is_there_a_character() -> None:
    text = bar([(1, "a", ""), (500, "b", ""), (0, "c", "")], 1000, width=10).plain
    assert text == "abbbbb····"
    assert bar([(5, "a", ""), (5, "b", "")], 5, width=4).plain == "aaaa"
    assert bar([], 0, width=3).plain == "···"


def test_a_sparkline_goes_down_when_the_loss_does() -> None:
    assert sparkline([1.0, 0.1, 0.01]) == "█▄▁"
    assert sparkline([2.0, 2.0]) == "▁▁"
    assert sparkline([]) == ""
    assert len(sparkline([float(n) for n in range(1, 500)], width=24)) == 24
    assert sparkline([float("nan"), 1.0, -1.0]) == "█▁"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (59.4, "59 s"), (185, "3 min 05 s"), (7860, "2 h 11 min")]
)
def test_times_read_like_times(seconds: float, text: str) -> None:
    assert clock_time(seconds) == text


@pytest.mark.parametrize(
    ("n", "text"), [(0, "0 B"), (999, "999 B"), (16384, "16.4 kB"), (3.5e9, "3.5 GB")]
)
def test_bytes_read_like_bytes(n: float, text: str) -> None:
    assert size(n) == text


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.0025, "2.5 ms"), (3.14159, "3.14 s"), (125, "2 min 05 s")]
)
def test_durations_have_three_digits(seconds: float, words: str) -> None:
    assert duration(seconds) == words
