"""From files to steps: every format, times, files with all steps, and what is wrong with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import meshio
import numpy as np
import pytest

from penstock.wrapping.formats import FormatError, missing, read
from penstock.wrapping.outputs import Output
from penstock.wrapping.reader import Found, Reader
from penstock.wrapping.settings import Wrapping
from penstock.wrapping.steps import OutputError
from penstock.wrapping.template import Template

SHAPE = (4, 3)


def content(step: int) -> np.ndarray:
    return 10.0 * step + np.arange(12).reshape(SHAPE) / 7


def wrapping(*outputs: str, **more: Any) -> Wrapping:
    def output(text: str) -> Output:
        field, _, rest = text.partition("=")
        pattern, _, select = rest.partition(":")
        return Output(field, pattern, select)

    if "times" in more:
        more["times"] = output(f"--times={more['times']}")
    empty = Wrapping("solver", (), {}, {}, tuple(map(output, outputs)))
    return replace(empty, **more)


def steps(folder: Path, *outputs: str, **more: Any) -> list[Found]:
    """All steps of a program that has ended."""
    reader = Reader(wrapping(*outputs, **more), folder, {"u": SHAPE})
    found = list(reader.look(ended=True))
    reader.check_end()
    return found


def mesh(path: Path, values: np.ndarray, **more: Any) -> None:
    points = np.array([[i, j, 0.0] for i in range(4) for j in range(3)])
    quads = [[3 * i + j, 3 * i + j + 1, 3 * i + j + 4, 3 * i + j + 3]
             for i in range(3) for j in range(2)]  # fmt: skip
    data = {"u": values.ravel()}
    cells = {"c": [np.arange(6.0)]}
    meshio.Mesh(points, [("quad", quads)], data, cells).write(path, **more)


def write(path: Path, values: np.ndarray) -> None:
    """By the ending, with a second array beside it where the format takes several."""
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".npz":
        np.savez(path, u=values, other=1.0)
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["group/u"] = values
            file["group/other"] = 1.0
    elif path.suffix == ".vtu":
        mesh(path, values, binary=False)
    else:
        np.savetxt(path, values.reshape(len(values), -1), fmt="%.17g", delimiter=",")


@pytest.mark.parametrize(
    ("suffix", "select"),
    [(".npy", ""), (".npz", ":u"), (".h5", ":/group/u"), (".csv", ""), (".vtu", ":u")],
)
def test_a_file_a_step_is_read_in_every_format(tmp_path: Path, suffix: str, select: str) -> None:
    for step in range(3):
        write(tmp_path / f"out_{step}{suffix}", content(step))
    found = steps(tmp_path, f"u=out_*{suffix}{select}", dt=0.5)
    assert [step.t for step in found] == [0.0, 0.5, 1.0]
    for k, step in enumerate(found):
        np.testing.assert_allclose(step.fields["u"], content(k), rtol=1e-10)
        assert step.fields["u"].shape == SHAPE
        assert step.done_with == {f"out_{k}{suffix}"}


@pytest.mark.parametrize("binary", [False, True])
def test_a_vtu_file_is_read_in_text_and_base64(tmp_path: Path, binary: bool) -> None:
    mesh(tmp_path / "a.vtu", content(1), binary=binary)
    np.testing.assert_allclose(read(tmp_path / "a.vtu", "u"), content(1).ravel(), rtol=1e-10)
    np.testing.assert_array_equal(read(tmp_path / "a.vtu", "c"), np.arange(6.0))


@pytest.mark.parametrize(
    ("suffix", "select"), [(".npy", ""), (".npz", ":u"), (".h5", ":group/u"), (".csv", "")]
)
def test_one_file_may_hold_all_steps(tmp_path: Path, suffix: str, select: str) -> None:
    write(tmp_path / f"all{suffix}", np.stack([content(k) for k in range(3)]))
    found = steps(tmp_path, f"u=all{suffix}{select}", steps=3)
    assert [step.t for step in found] == [0.0, 1.0, 2.0]
    for k, step in enumerate(found):
        np.testing.assert_allclose(step.fields["u"], content(k), rtol=1e-15)
    assert not list(tmp_path.iterdir())  # nothing is kept while the steps are being sent


def test_columns_of_a_table_are_named_by_its_first_line(tmp_path: Path) -> None:
    for text in ("t,p1,p2\n0.1,1,2\n0.2,3,4\n", "# t; p1; p2\n0.1; 1; 2\n0.2; 3; 4\n",
                 "t p1 p2\n0.1 1 2\n\n0.2 3 4\n"):  # fmt: skip
        (tmp_path / "probes.csv").write_text(text)
        found = steps(tmp_path, "probes=probes.csv:p2,p1", times="probes.csv:t")
        assert [step.t for step in found] == [0.1, 0.2]
        assert [step.fields["probes"].tolist() for step in found] == [[2, 1], [4, 3]]


def test_columns_without_names_are_counted_from_zero(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_text("0.1 1 2\n0.2 3 4\n")
    np.testing.assert_array_equal(read(tmp_path / "a.dat", "2"), [[2], [4]])


def test_times_come_from_names_steps_or_a_file(tmp_path: Path) -> None:
    def times(**more: Any) -> list[float | None]:
        for name in ("u_0.25.npy", "u_0.5.npy", "u_10.npy"):
            np.save(tmp_path / name, content(0))
        return [step.t for step in steps(tmp_path, "u=u_*.npy", **more)]

    assert times() == [0.25, 0.5, 10.0]
    assert times(dt=2.0, t0=1.0) == [1.5, 2.0, 21.0]
    np.savetxt(tmp_path / "t.txt", [3.0, 4.0, 5.0])
    given = {"templates": {"t.txt": Template("", "t.txt")}}
    assert times(times="t.txt", **given) == [3.0, 4.0, 5.0]
    assert (tmp_path / "t.txt").exists()  # given, not written by the program
    assert times(times="t.txt") == [3.0, 4.0, 5.0]


def test_a_steady_problem_has_one_step_and_no_time(tmp_path: Path) -> None:
    np.save(tmp_path / "result.npy", content(1))
    (found,) = steps(tmp_path, "u=result.npy", steps=1)
    assert found.t is None
    np.testing.assert_array_equal(found.fields["u"].reshape(SHAPE), content(1))


def test_fields_of_a_step_may_come_in_different_ways(tmp_path: Path) -> None:
    for step in range(2):
        np.save(tmp_path / f"u_{step}.npy", content(step))
    np.save(tmp_path / "drag.npy", np.array([0.1, 0.2]))
    found = steps(tmp_path, "u=u_*.npy", "drag=drag.npy")
    assert [float(step.fields["drag"]) for step in found] == [0.1, 0.2]
    np.testing.assert_array_equal(found[1].fields["u"], content(1))


def test_a_file_that_is_being_written_is_not_touched(tmp_path: Path) -> None:
    reader = Reader(wrapping("u=out_*.npy"), tmp_path, {})
    np.save(tmp_path / "whole.npy", content(1))
    data = (tmp_path / "whole.npy").read_bytes()
    with (tmp_path / "out_1.npy").open("wb", buffering=0) as file:
        for start in range(0, len(data), 50):
            file.write(data[start : start + 50])
            assert not list(reader.look(ended=False))
    (tmp_path / "out_2.npy").write_bytes(data[:100])
    (found,) = reader.look(ended=False)
    np.testing.assert_array_equal(found.fields["u"], content(1))


def test_a_broken_file_is_named_with_what_may_help(tmp_path: Path) -> None:
    (tmp_path / "out_1.npy").write_bytes(b"\x93NUMPY")
    (tmp_path / "out_2.npy").write_bytes(b"")
    reader = Reader(wrapping("u=out_*.npy"), tmp_path, {})
    with pytest.raises(FormatError, match=r"out_1\.npy cannot be read .* --done"):
        list(reader.look(ended=False))


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "out_1.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(FormatError, match="pickle"):
        read(tmp_path / "out_1.npy", "")


@pytest.mark.parametrize(
    ("outputs", "more", "words"),
    [
        (["u=no_*.npy"], {}, r"no file matches no_\*\.npy\. Its folder holds a_1\.npy"),
        (["u=no.npy"], {}, r"there is no file no\.npy"),
        (["u=a_*.npy"], {"steps": 3}, r"ended after 2 steps; 3 were announced"),
        (["u=a_*.npy"], {"steps": 1}, r"more steps than the 1 "),
        (["u=a_*.npy", "d=d.npy"], {}, r"2 files with one step each, and 3 steps in d\.npy"),
        (["d=d.npy", "e=e.npy"], {}, r"same number of steps: d has 3, e has 2"),
        (["z=z.npz"], {}, "holds several arrays; put one of p, q behind a colon"),
        (["z=z.npz:r"], {}, "has no 'r'; put one of p, q"),
        (["t=t.csv"], {}, "cannot be read"),
        (["d=d.npy"], {"times": "e.npy"}, "same number of steps"),
    ],
)
def test_outputs_that_do_not_fit_are_told_with_the_reason(
    tmp_path: Path, outputs: list[str], more: dict[str, Any], words: str
) -> None:
    for step in (1, 2):
        np.save(tmp_path / f"a_{step}.npy", content(step))
    np.save(tmp_path / "d.npy", np.zeros(3))
    np.save(tmp_path / "e.npy", np.zeros(2))
    np.savez(tmp_path / "z.npz", p=1.0, q=2.0)
    (tmp_path / "t.csv").write_text("a,b\n1,2\n3\n")
    with pytest.raises((OutputError, FormatError), match=words):
        steps(tmp_path, *outputs, **more)


def test_a_missing_package_is_named_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing(".npy") == missing(".h5") == missing(".vtu") == ""
    monkeypatch.setattr("penstock.wrapping.formats.find_spec", lambda name: None)
    assert missing(".npy") == ""
    assert "-m pip install h5py" in missing(".h5")
    assert "{server}" in missing(".vtu")
    assert ".npy, .npz, .csv" in missing(".xyz")
