"""Snapshots and checkpoints as files."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from penstock_server import checkpoint, snapshot
from penstock_server.checkpoint import CheckpointWriter

CPU = torch.device("cpu")


def write(root: Path, batch: int, content: str = "weights") -> snapshot.Snapshot:
    def save_model(folder: Path) -> None:
        folder.mkdir()
        (folder / "model.safetensors").write_text(content)

    state = {"random": snapshot.random_states(CPU), "seconds": 1.5}
    return snapshot.write(root, batch, save_model, state, {"draws": 10 * batch})


def test_the_newest_complete_snapshot_is_found(tmp_path: Path) -> None:
    assert snapshot.newest(tmp_path) is None
    write(tmp_path, 5)
    write(tmp_path, 12)
    (tmp_path / "batch-000000099.part").mkdir()
    found = snapshot.newest(tmp_path)
    assert found is not None
    assert (found.batch, found.about()["draws"]) == (12, 120)
    (found.model / "model.safetensors").write_text("short")
    found = snapshot.newest(tmp_path)
    assert found is not None
    assert found.batch == 5


def test_a_snapshot_of_the_same_batch_replaces_the_old_one(tmp_path: Path) -> None:
    write(tmp_path, 5, "old")
    found = write(tmp_path, 5, "new")
    assert (found.model / "model.safetensors").read_text() == "new"


def test_pruning_spares_the_newest_two_and_the_one_in_use(tmp_path: Path) -> None:
    for batch in (1, 2, 3, 4):
        write(tmp_path, batch)
    snapshot.prune(tmp_path, in_use=1)
    assert [s.batch for s in snapshot.standing(tmp_path)] == [1, 3, 4]


def test_random_states_come_back_through_a_file(tmp_path: Path) -> None:
    found = write(tmp_path, 1)
    expected = torch.rand(3), random.random(), np.random.rand(3)
    snapshot.set_random_states(found.state()["random"], CPU)
    assert torch.equal(torch.rand(3), expected[0])
    assert random.random() == expected[1]
    assert np.array_equal(np.random.rand(3), expected[2])


def make_checkpoint(root: Path, batch: int, keep: int = 3) -> CheckpointWriter:
    writer = CheckpointWriter(root / "checkpoints", keep)
    (writer.ledgers(batch) / "ledger-0").write_text(f"draws up to {batch}")
    writer.commit(write(root / "snapshots", batch))
    writer.wait()
    return writer


def test_a_checkpoint_holds_the_snapshot_and_the_ledgers(tmp_path: Path) -> None:
    writer = make_checkpoint(tmp_path, 7)
    assert (writer.durable, writer.error) == (7, "")
    found = checkpoint.newest_intact(tmp_path / "checkpoints")
    assert found is not None
    assert found.snapshot.state()["seconds"] == 1.5
    assert (found.ledgers / "ledger-0").read_text() == "draws up to 7"


@pytest.mark.parametrize("name", ["snapshot/state.pt", "ledgers/ledger-0", "manifest.json"])
@pytest.mark.parametrize("harm", ["torn", "altered", "lost"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, name: str, harm: str) -> None:
    make_checkpoint(tmp_path, 7)
    make_checkpoint(tmp_path, 9)
    path = tmp_path / "checkpoints" / "checkpoint-000000009" / name
    content = bytearray(path.read_bytes())
    if harm == "torn":
        path.write_bytes(content[: len(content) // 2])
    elif harm == "altered":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        path.unlink()
    newest = checkpoint.standing(tmp_path / "checkpoints")[-1]
    assert newest.batch == 9
    assert checkpoint.faults(newest)
    found = checkpoint.newest_intact(tmp_path / "checkpoints")
    assert found is not None
    assert found.batch == 7


def test_the_last_checkpoints_are_kept_and_half_written_ones_cleared(tmp_path: Path) -> None:
    for batch in (1, 2, 3, 4):
        writer = make_checkpoint(tmp_path, batch, keep=2)
    writer.ledgers(5)
    assert [c.batch for c in checkpoint.standing(writer.root)] == [3, 4]
    writer.clear()
    assert len(list(writer.root.iterdir())) == 2


def test_a_checkpoint_that_cannot_be_written_is_named_and_the_next_one_tried(
    tmp_path: Path,
) -> None:
    (tmp_path / "checkpoints").write_text("not a folder")
    writer = CheckpointWriter(tmp_path / "checkpoints", 3)
    writer.commit(write(tmp_path / "snapshots", 7))
    writer.wait()
    assert writer.durable is None
    assert "The checkpoint of batch 7 could not be written" in writer.error
    (tmp_path / "checkpoints").unlink()
    writer.commit(write(tmp_path / "snapshots", 8))
    writer.wait()
    assert (writer.durable, writer.error) == (8, "")
