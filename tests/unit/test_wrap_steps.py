"""Which output files are complete, in which order, and what belongs together."""

from __future__ import annotations

import math

import pytest

from penstock.wrapping.outputs import Output, key, number
from penstock.wrapping.steps import OutputError, Steps

U = Output("u", "out_*.npy")
P = Output("p", "p_*.npy")


def take(
    steps: Steps, *names: str, markers: tuple[str, ...] = (), ended: bool = False
) -> list[str]:
    """The u files (else p) of the steps that became complete."""
    there = {
        "out_*.npy": [name for name in names if name.startswith("out_")],
        "p_*.npy": [name for name in names if name.startswith("p_")],
    }
    return [
        step.files.get("u", step.files.get("p", "")) for step in steps.take(there, markers, ended)
    ]


def test_a_file_is_complete_when_the_next_one_is_there() -> None:
    steps = Steps([U], None, at_once=False)
    assert take(steps) == []
    assert take(steps, "out_1.npy") == []
    assert steps.waiting == ["out_1.npy"]
    assert take(steps, "out_1.npy", "out_2.npy") == ["out_1.npy"]
    assert take(steps, "out_2.npy") == []
    assert take(steps, "out_2.npy", ended=True) == ["out_2.npy"]


def test_numbers_are_sorted_as_numbers() -> None:
    names = [f"out_{n}.npy" for n in (10, 9, 1, 100, 2)]
    assert take(Steps([U], None, False), *names, ended=True) == [
        f"out_{n}.npy" for n in (1, 2, 9, 10, 100)
    ]
    times = ["out_0.10.npy", "out_0.5.npy", "out_1e-3.npy", "out_0.npy"]
    assert take(Steps([U], None, False), *times, ended=True) == [
        "out_0.npy", "out_1e-3.npy", "out_0.10.npy", "out_0.5.npy",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "name", "value"),
    [
        ("out_*.npy", "out_0012.npy", 12.0),
        ("out_*.npy", "out_0.25.npy", 0.25),
        ("run*/u_*.npy", "run3/u_0007.npy", 7.0),
        ("*.npy", "2024-final.npy", 2024.0),
        ("*.npy", "final.npy", math.nan),
    ],
)
def test_the_number_of_a_step_is_the_last_one_in_its_name(
    pattern: str, name: str, value: float
) -> None:
    found = key(pattern, name)
    assert found is not None
    assert number(found) == pytest.approx(value, nan_ok=True)


def test_a_name_of_another_pattern_has_no_key() -> None:
    assert key("out_*.npy", "out_1.npy.part") is None
    assert key("out_*.npy", "sub/out_1.npy") is None


def test_a_step_waits_for_all_its_fields() -> None:
    steps = Steps([U, P], None, at_once=False)
    assert take(steps, "out_1.npy", "out_2.npy", "p_001.npy") == []
    assert take(steps, "out_1.npy", "out_2.npy", "p_001.npy", "p_002.npy") == ["out_1.npy"]
    with pytest.raises(OutputError, match=r"step of out_2\.npy lacks the field p\."):
        take(steps, "out_2.npy", ended=True)


def test_a_step_is_not_overtaken_by_a_later_one() -> None:
    steps = Steps([U, P], "*.done", at_once=True)
    assert take(steps, "out_1.npy", "out_2.npy", "p_2.npy") == []
    assert take(steps, "out_1.npy", "out_2.npy", "p_2.npy", "p_1.npy") == ["out_1.npy", "out_2.npy"]


def test_a_marker_tells_instead_of_the_next_file() -> None:
    steps = Steps([U], "out_*.done", at_once=False)
    assert take(steps, "out_1.npy", "out_2.npy") == []
    assert take(steps, "out_1.npy", "out_2.npy", markers=("out_01.done",)) == ["out_1.npy"]
    assert take(steps, "out_2.npy", ended=True) == ["out_2.npy"]


def test_one_marker_may_speak_for_all() -> None:
    steps = Steps([U], "finished", at_once=False)
    assert take(steps, "out_1.npy", "out_2.npy") == []
    assert take(steps, "out_1.npy", "out_2.npy", markers=("finished",)) == [
        "out_1.npy",
        "out_2.npy",
    ]


def test_files_that_are_renamed_into_place_are_taken_at_once() -> None:
    assert take(Steps([U], None, at_once=True), "out_1.npy") == ["out_1.npy"]


def test_a_file_that_comes_late_or_twice_is_named() -> None:
    steps = Steps([U], None, at_once=False)
    take(steps, "out_2.npy", "out_3.npy")
    with pytest.raises(OutputError, match=r"out_1\.npy came after out_2\.npy had been sent"):
        take(steps, "out_1.npy", "out_3.npy")
    with pytest.raises(OutputError, match="same step of u"):
        take(Steps([U], None, False), "out_1.npy", "out_01.npy")
