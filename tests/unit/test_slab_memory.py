"""The slab: made whole or not at all, and seen alike by every process."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from penstock_server import slab as slabs
from penstock_server.slab import COMMITTED, Slab, SlabError, SlabSpec


def spec(n_slots: int = 6, **more: object) -> SlabSpec:
    values: dict[str, object] = {
        "n_slots": n_slots, "segment_steps": 3, "window": 2, "n_parameters": 2,
        "fields": {"u": ((4, 2), "float32"), "total": ((), "float64")},
        "inputs": {"k": ((5,), "float64")}, "n_rows": 4, "max_parts": 70,
    }  # fmt: skip
    return SlabSpec(**(values | more))  # type: ignore[arg-type]


def test_what_one_process_writes_another_one_reads(tmp_path: Path) -> None:
    made = Slab.create(tmp_path / "shm", spec())
    made.fields["u"][2, 1] = 7.5
    made.fields["total"][5, 2] = -1.0
    made.inputs["k"][3] = np.arange(5)
    made.descriptor[4]["state"] = COMMITTED
    seen = Slab.attach(tmp_path / "shm")
    assert seen.spec == made.spec
    assert (seen.fields["u"][2, 1] == 7.5).all()
    assert seen.fields["total"][5, 2] == -1.0
    np.testing.assert_array_equal(seen.inputs["k"][3], np.arange(5))
    assert seen.descriptor["state"].tolist() == [0, 0, 0, 0, COMMITTED, 0]
    made.t[1, 1] = 0.25
    assert seen.t[1, 1] == 0.25


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    Slab.create(tmp_path / "shm", spec())
    seen = Slab.attach(tmp_path / "shm")
    with pytest.raises(ValueError, match="read-only"):
        seen.fields["u"][0] = 1.0


def test_all_memory_is_allocated_at_once(tmp_path: Path) -> None:
    """Sparse files would end in a bus error in the middle of a run."""
    Slab.create(tmp_path / "shm", spec(n_slots=4000))
    path = tmp_path / "shm" / "field.u"
    assert path.stat().st_blocks * 512 >= path.stat().st_size == 4000 * 3 * 8 * 4


def test_too_little_memory_is_refused_with_the_arithmetic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", ["total", "used", "free"])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 1000))
    with pytest.raises(
        SlabError, match=r"needs \d+ MB \(6 slots of \d+ bytes\).*reservoir.capacity"
    ):
        Slab.create(tmp_path / "shm", spec())
    assert not slabs.exists(tmp_path / "shm")


def test_a_slab_that_was_not_finished_is_made_anew(tmp_path: Path) -> None:
    """Its receiver was killed while it allocated; the supervisor starts another one."""
    folder = tmp_path / "shm"
    Slab.create(folder, spec())
    (folder / "slab.json").unlink()
    assert not slabs.exists(folder)
    again = Slab.create(folder, spec(n_slots=8))
    assert len(again.descriptor) == 8
    assert Slab.attach(folder).spec.n_slots == 8


def test_a_slab_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SlabError, match="There is no slab in"):
        Slab.attach(tmp_path / "nothing")


def test_the_sizes_add_up_to_the_files(tmp_path: Path) -> None:
    made = Slab.create(tmp_path / "shm", spec())
    names = set(made.spec.arrays())
    files = {path.name: path.stat().st_size for path in (tmp_path / "shm").iterdir()}
    assert set(files) == names | {"slab.json"}
    assert sum(files[name] for name in names) == made.spec.n_bytes
    assert made.parts.shape == (6, 3, 2)  # 70 parts need two words
    assert made.spec.windows == 2
    assert json.loads((tmp_path / "shm" / "slab.json").read_text())["n_slots"] == 6
