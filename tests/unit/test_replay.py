"""Replay: what is refused, batches by the log, and the verdict about draws and weights."""

from __future__ import annotations

import shutil
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import stored
import torch
from safetensors.torch import save_file

from penstock_server.config import Campaign, parse
from penstock_server.data_file import DataFile
from penstock_server.dataset import DataSet, gather
from penstock_server.draw_log import DRAW, Draws, checksums, contents
from penstock_server.replay import ReplayError, judge, read_recording, replayed
from penstock_server.replay_feed import NotReproduced, ReplayFeed, ReplayFeedSettings

CAMPAIGN = """
name = "small"
keep = "{keep}"
[solver]
command = ["true"]
steps = 6
[design]
simulations = 4
[design.parameters]
a = {{ low = 0, high = 1 }}
b = {{ low = -5, high = 0 }}
[fields.u]
shape = [3, 2]
[reservoir]
policy = "fifo"
[training]
batch_size = 3
[stop]
seconds = 60.0
"""
# Batch 2 is another rank's alone.
DRAWN = [(1, 2, 0), (1, 3, 5), (1, 2, 4), (3, 4, 1), (3, 2, 0)]


def log(data: Path) -> Draws:
    """(batch, simulation, step) as a rank would have logged them."""
    group = DataSet(data).roles["train"]
    rows = np.zeros(len(DRAWN), DRAW)
    rows["batch"], rows["simulation"], rows["step"] = np.array(DRAWN).T
    at = np.array([int(np.flatnonzero(group.simulation == s)[0]) for _, s, _ in DRAWN])
    batch = gather(group, at, rows["step"].astype(np.int64), 1)
    rows["inputs"], rows["content"] = checksums(batch.parameters.numpy()), contents(batch)
    return rows


@pytest.fixture
def data(tmp_path: Path) -> Path:
    stored.write(tmp_path / "data.h5", {"train": [1, 2, 3, 4]})
    return tmp_path / "data.h5"


def feed(data: Path, draws: Draws, **changes: object) -> ReplayFeed:
    path = data.parent / "draws-0.bin"
    path.write_bytes(draws.tobytes())
    settings = {
        "path": str(data), "rank": 0, "world": 1, "batch_size": 3, "window": 1, "stride": 1,
        "segment_steps": 1, "components": {"u": 1}, "seed": 0, **changes,
    }  # fmt: skip
    return ReplayFeed(ReplayFeedSettings(settings, str(path)))


def test_batches_are_those_of_the_log_with_their_values(data: Path) -> None:
    own = feed(data, log(data))
    assert own.stock(0.0).ready == 3
    batch = own.take(1)
    assert batch.simulation.tolist() == [2, 3, 2]
    assert batch.step[:, 0].tolist() == [0, 5, 4]
    assert np.array_equal(batch.fields["u"][1, 0], stored.value(3, 5))
    assert own.stock(0.0).ready == 0
    own.skip(2)
    assert own.stock(0.0).ready == 2
    assert own.take(3).simulation.tolist() == [4, 2]
    assert own.stock(0.0).ready == 0


def test_fields_come_in_the_order_of_the_campaign(tmp_path: Path) -> None:
    described = {"shape": [2], "dtype": "float32", "role": "state", "unit": "", "components": 1}
    layout = replace(stored.layout({"train": 1}, steps=1), fields={"z": described, "a": described})
    file = DataFile(tmp_path / "data.h5", layout)
    row = file.row("train", 5, np.zeros(2))
    assert row is not None
    fields = {"z": np.full((1, 2), 1.0, "f4"), "a": np.full((1, 2), 2.0, "f4")}
    file.put("train", row, 0, np.zeros(1), fields, {})
    file.end("train", 5, 1)
    file.close()
    draws = np.zeros(1, DRAW)
    draws["simulation"], draws["batch"] = 5, 1
    draws["inputs"] = zlib.crc32(np.zeros(2).tobytes())
    draws["content"] = zlib.crc32(fields["a"].tobytes(), zlib.crc32(fields["z"].tobytes()))
    batch = feed(tmp_path / "data.h5", draws, components={"z": 1, "a": 1}, batch_size=1).take(1)
    assert list(batch.fields) == ["z", "a"]


def test_a_restarted_rank_goes_on_in_the_log(data: Path) -> None:
    own = feed(data, log(data))
    own.restore(2)
    assert own.take(3).simulation.tolist() == [4, 2]


@pytest.mark.parametrize(("column", "what"), [("inputs", "parameters"), ("content", "fields")])
def test_a_solver_that_gives_something_else_is_told_by_step(
    data: Path, column: str, what: str
) -> None:
    draws = log(data)
    draws[column][1] += 1
    with pytest.raises(
        NotReproduced, match=f"Step 5 of simulation 3, in batch 1, has other {what}"
    ):
        feed(data, draws).take(1)


def test_a_step_that_was_not_computed_again_is_told(data: Path, tmp_path: Path) -> None:
    draws = log(data)
    (tmp_path / "half").mkdir()
    half = tmp_path / "half" / "data.h5"
    stored.write(half, {"train": [2]})
    with pytest.raises(NotReproduced, match="Simulation 3 was not computed again"):
        feed(half, draws).take(1)


def make_run(folder: Path, data: Path, keep: str = "none") -> Path:
    (folder / "model").mkdir(parents=True)
    (folder / "campaign.toml").write_text(CAMPAIGN.format(keep=keep))
    (folder / "draws-0.bin").write_bytes(log(data).tobytes())
    save_file({"w": torch.arange(4.0), "b": torch.zeros(2)}, folder / "model/model.safetensors")
    return folder


def test_a_replay_produces_what_is_needed_and_keeps_the_schedule(
    tmp_path: Path, data: Path
) -> None:
    recording = read_recording(make_run(tmp_path / "run", data))
    assert (recording.batches, recording.samples) == (3, 5)
    assert recording.simulations == {2, 3, 4}
    campaign = replayed(recording)
    assert (campaign.mode, campaign.produces, campaign.planned_batches) == ("offline", True, 3)
    assert (campaign.stop.seconds, campaign.reservoir.policy) == (None, "reservoir")
    (tmp_path / "run" / "model" / "model.json").write_text("{}")
    again: Campaign = parse(campaign.to_toml())  # what the replay's folder holds can be read
    assert again.offline.replay == str(tmp_path / "run")


def test_what_the_run_kept_is_read_and_not_computed(tmp_path: Path, data: Path) -> None:
    run = make_run(tmp_path / "run", data, keep="all")
    shutil.copy(data, run / "data.h5")
    campaign = replayed(read_recording(run))
    assert campaign.offline.dataset == str(run / "data.h5")
    assert not campaign.produces


def test_the_same_draws_and_weights_are_the_same(tmp_path: Path, data: Path) -> None:
    recording = read_recording(make_run(tmp_path / "run", data))
    verdict = judge(recording, make_run(tmp_path / "again", data))
    assert verdict.ok
    assert (verdict.n_weights, verdict.worst) == (6, 0.0)


def test_one_bit_of_a_weight_is_seen(tmp_path: Path, data: Path) -> None:
    recording = read_recording(make_run(tmp_path / "run", data))
    again = make_run(tmp_path / "again", data)
    other = torch.nextafter(torch.arange(4.0), torch.full((4,), 9.0))
    save_file({"w": other, "b": torch.zeros(2)}, again / "model/model.safetensors")
    verdict = judge(recording, again)
    assert verdict.same_draws
    assert not verdict.same_weights
    assert 0 < verdict.worst < 1e-6


def test_another_order_of_the_draws_is_seen(tmp_path: Path, data: Path) -> None:
    recording = read_recording(make_run(tmp_path / "run", data))
    again = make_run(tmp_path / "again", data)
    rows = log(data)
    rows[[0, 1]] = rows[[1, 0]]
    (again / "draws-0.bin").write_bytes(rows.tobytes())
    assert not judge(recording, again).same_draws


@pytest.mark.parametrize(
    ("gone", "why"),
    [
        ("campaign.toml", "is not a run"),
        ("draws-0.bin", "did not log what it drew"),
        ("model/model.safetensors", "it did not reach its end"),
    ],
)
def test_a_run_that_lacks_something_is_refused_in_a_sentence(
    tmp_path: Path, data: Path, gone: str, why: str
) -> None:
    run = make_run(tmp_path / "run", data)
    (run / gone).unlink()
    with pytest.raises(ReplayError, match=why):
        read_recording(run)


def test_a_run_that_drew_nothing_is_refused(tmp_path: Path, data: Path) -> None:
    run = make_run(tmp_path / "run", data)
    (run / "draws-0.bin").write_bytes(b"")
    with pytest.raises(ReplayError, match="did not train on anything"):
        read_recording(run)
