"""The data set: written by pieces, read as whole simulations, and never half of one."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import stored

from penstock_server.data_file import DataFile
from penstock_server.dataset import DataSet, DataSetError


def test_what_was_written_is_read_by_simulation_and_role(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    stored.write(path, {"train": [4, 2], "validation": [0]})
    data = DataSet(path)
    assert [t.simulation for t in data.trajectories("train")] == [2, 4]
    (held_out,) = data.trajectories("validation")
    assert held_out.parameters.tolist() == list(stored.point(0).values())
    assert np.allclose(held_out.t, 0.1 * np.arange(1, 7))
    for step in range(6):
        assert np.array_equal(held_out.fields["u"][step], stored.value(0, step))
    assert data.trajectories("test") == []
    assert data.about["u"].unit == "K"


def test_a_simulation_counts_only_when_every_step_and_its_end_are_there(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    file = DataFile(path, stored.layout({"train": 4}))
    stored.put(file, "train", 1, 0, 3)
    stored.put(file, "train", 2, 0, 6)
    stored.put(file, "train", 3, 0, 4)
    file.end("train", 1, 6)  # three steps are missing
    file.end("train", 3, 4)  # it is shorter than the others, and whole
    assert [t.simulation for t in DataSet(path).trajectories("train")] == [3]
    file.end("train", 2, 6)
    stored.put(file, "train", 1, 3, 3)
    assert [t.simulation for t in DataSet(path).trajectories("train")] == [1, 2, 3]
    assert [len(t.t) for t in DataSet(path).trajectories("train")] == [6, 6, 4]


def test_a_keeper_that_is_started_again_goes_on_in_the_same_rows(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    first = DataFile(path, stored.layout({"train": 2}))
    stored.put(first, "train", 5, 0, 2)
    again = DataFile(path, stored.layout({"train": 2}))  # the first was killed
    stored.put(again, "train", 5, 2, 4)
    stored.put(again, "train", 6, 0, 6)
    for simulation in (5, 6):
        again.end("train", simulation, 6)
    again.close()
    again.close()
    assert [t.simulation for t in DataSet(path).trajectories("train")] == [5, 6]


def test_a_full_file_has_no_row_for_one_more(tmp_path: Path) -> None:
    file = DataFile(tmp_path / "data.h5", stored.layout({"train": 1}))
    assert file.row("train", 3, np.zeros(2)) == 0
    assert file.row("train", 4, np.zeros(2)) is None
    assert file.row("train", 3, np.zeros(2)) == 0


def test_rows_without_data_take_no_room_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    file = DataFile(path, stored.layout({"train": 200_000}, steps=100))
    file.close()
    assert path.stat().st_size > 400_000_000
    assert 512 * path.stat().st_blocks < 300_000_000  # `stored` and `t` are written, fields not


def test_input_fields_come_once_a_simulation(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    file = DataFile(path, stored.layout({"train": 2}, inputs=True))
    stored.put(file, "train", 7, 0, 6, inputs=True)
    file.end("train", 7, 6)
    (read,) = DataSet(path).trajectories("train")
    assert read.inputs["k"].tolist() == [7, 7]


def test_points_are_found_by_their_bits(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    stored.write(path, {"train": [3, 1, 2]})
    data = DataSet(path)
    other = {**stored.point(1), "a": np.nextafter(1 / 7, 1.0)}
    rows = data.find("train", [stored.point(2), other, stored.point(3)])
    assert rows[1] is None
    assert [int(data.roles["train"].simulation[r]) for r in rows if r is not None] == [2, 3]


def test_every_step_of_the_rows_comes_once_in_batches(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    stored.write(path, {"train": [1, 2, 3]})
    data = DataSet(path)
    seen = [
        (int(s), int(step[0]))
        for batch in data.batches("train", 5, data.rows("train")[:2])
        for s, step in zip(batch.simulation, batch.step, strict=True)
    ]
    assert seen == [(s, step) for s in (1, 2) for step in range(6)]


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda path: path.write_bytes(b"not HDF5"), "cannot be read as a data set"),
        (lambda path: path.unlink(), "There is no data set"),
        (lambda path: path.write_bytes(path.read_bytes()[:-200]), "cut off|cannot be read"),
    ],
)
def test_a_damaged_file_is_refused_in_a_sentence(tmp_path: Path, harm, says: str) -> None:
    path = tmp_path / "data.h5"
    stored.write(path, {"train": [1]})
    harm(path)
    with pytest.raises(DataSetError, match=says):
        DataSet(path)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    stored.write(path, {"train": [1]})
    with h5py.File(path, "r+") as file:
        file.attrs["format"] = "penstock-data-2"
    with pytest.raises(DataSetError, match="'penstock-data-2'; use the version"):
        DataSet(path)
