"""The trainer's own log: what is in it, and what is cut away when a training goes back."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from campaigns import small
from trainer_scripted import Interrupted, ScriptedFeed, TickingClock, make_batches, make_plan

from penstock_server import draw_log
from penstock_server.draw_log import (
    DRAW,
    FOLD,
    DrawLog,
    draw_log_path,
    joint_digest,
    read_draws,
    sequence_digest,
)
from penstock_server.run_folder import RunFolder
from penstock_server.trainer import train
from penstock_server.wiring import training_plan
from penstock_surrogates.batch import Batch

torch.set_num_threads(1)


def batch(*simulations: int, first: int = 0, window: int = 2) -> Batch:
    """Samples of one simulation each; the step is that of its window's begin."""
    b = len(simulations)
    steps = first + torch.arange(b)[:, None] + torch.arange(window)
    return Batch(
        parameters=torch.tensor([[float(s), 0.5] for s in simulations], dtype=torch.float64),
        t=torch.zeros(b, window, dtype=torch.float64),
        fields={
            "u": torch.arange(b * window * 3, dtype=torch.float32).reshape(b, window, 3),
            "q": torch.ones(b, window),
        },
        simulation=torch.tensor(simulations),
        step=steps,
    )


def logged(path: Path, *batches: Batch, fields: Sequence[str] = ()) -> np.ndarray:
    log = DrawLog(path, fields)
    log.cut(0)
    for number, each in enumerate(batches, start=1):
        log.add(each, number)
    log.close()
    return read_draws(path)


def test_every_sample_of_every_batch_stands_in_the_log_in_order(tmp_path: Path) -> None:
    rows = logged(tmp_path / "d", batch(7, 3), batch(9, first=4))
    assert rows["simulation"].tolist() == [7, 3, 9]
    assert rows["batch"].tolist() == [1, 1, 2]
    assert rows["step"].tolist() == [0, 1, 4]
    assert rows["inputs"][0] == zlib.crc32(np.array([7.0, 0.5]).tobytes())
    assert not rows["content"].any()
    assert (tmp_path / "d").stat().st_size == 3 * 24


def test_contents_are_summed_as_the_shards_do(tmp_path: Path) -> None:
    one = batch(7, 3)
    for order in (("u", "q"), ("q", "u")):
        rows = logged(tmp_path / "d", one, fields=order)
        for sample, content in enumerate(rows["content"]):
            crc = zlib.crc32(one.fields[order[0]][sample].numpy().tobytes())
            assert content == zlib.crc32(one.fields[order[1]][sample].numpy().tobytes(), crc)


def test_it_is_written_in_folds_and_whole_when_flushed(tmp_path: Path) -> None:
    log = DrawLog(tmp_path / "d")
    log.cut(0)
    for number in range(1, FOLD):
        log.add(batch(1), number)
    log.add(None, FOLD)
    assert len(read_draws(tmp_path / "d")) == 0
    log.add(batch(1), FOLD + 1)
    assert len(read_draws(tmp_path / "d")) == FOLD
    log.add(batch(2), FOLD + 2)
    log.flush(durable=True)
    assert len(read_draws(tmp_path / "d")) == FOLD + 1
    log.close()
    log.close()


@pytest.mark.parametrize(("back_to", "kept"), [(0, 0), (1, 2), (2, 3), (3, 5), (9, 5)])
def test_a_log_is_cut_back_to_a_batch_and_goes_on(tmp_path: Path, back_to: int, kept: int) -> None:
    before = logged(tmp_path / "d", batch(7, 3), batch(9), batch(5, 6)).tolist()
    log = DrawLog(tmp_path / "d")
    log.cut(back_to)
    log.add(batch(8), back_to + 1)
    log.close()
    rows = read_draws(tmp_path / "d")
    assert rows[:-1].tolist() == before[:kept]
    assert (rows["simulation"][-1], rows["batch"][-1]) == (8, back_to + 1)


def test_what_waits_is_forgotten_too_when_a_log_is_cut(tmp_path: Path) -> None:
    log = DrawLog(tmp_path / "d")
    log.cut(0)
    log.add(batch(7), 1)
    log.cut(0)
    log.close()
    assert len(read_draws(tmp_path / "d")) == 0


@pytest.mark.parametrize("torn", [1, 23])
def test_a_torn_last_record_is_dropped(tmp_path: Path, torn: int) -> None:
    whole = logged(tmp_path / "d", batch(7, 3), batch(9)).tolist()
    os.truncate(tmp_path / "d", 3 * DRAW.itemsize - torn)
    assert read_draws(tmp_path / "d").tolist() == whole[:2]
    log = DrawLog(tmp_path / "d")
    log.cut(5)
    log.add(batch(8), 6)
    log.close()
    assert read_draws(tmp_path / "d")["simulation"].tolist() == [7, 3, 8]


def test_what_a_lost_machine_left_as_zeros_is_cut_away(tmp_path: Path) -> None:
    whole = logged(tmp_path / "d", batch(7, 3), batch(9)).tolist()
    with (tmp_path / "d").open("ab") as file:
        file.write(bytes(4096))
    log = DrawLog(tmp_path / "d")
    log.cut(2)
    log.close()
    assert read_draws(tmp_path / "d").tolist() == whole


def test_a_log_that_cannot_be_written_does_not_end_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = DrawLog(tmp_path / "nowhere" / "d")
    log.cut(0)
    assert "cannot be written: No such file or directory" in log.error
    log.add(batch(1), 1)
    log.close()

    def full(file: int, rows: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(draw_log, "_write", full)
    log = DrawLog(tmp_path / "d")
    log.cut(0)
    log.add(batch(1), 1)
    log.flush()
    assert "No space left on device" in log.error
    log.add(batch(1), 2)
    log.close()


def test_without_a_path_nothing_is_written(tmp_path: Path) -> None:
    log = DrawLog(None)
    log.cut(3)
    log.add(batch(1), 1)
    log.flush(durable=True)
    log.close()
    assert log.error == ""
    assert not list(tmp_path.iterdir())


def test_the_digest_is_of_the_sequence_and_of_nothing_else(tmp_path: Path) -> None:
    one = logged(tmp_path / "a", batch(7, 3), batch(9), fields=("u",))
    same = logged(tmp_path / "b", batch(7, 3), batch(9))
    other = logged(tmp_path / "c", batch(3, 7), batch(9))
    assert sequence_digest(one) == sequence_digest(same)
    assert sequence_digest(one) != sequence_digest(other)
    assert joint_digest([one, other]) != joint_digest([other, one])
    assert sequence_digest(one[:0]) == sequence_digest(np.empty(0, DRAW))


def test_a_campaign_says_whether_there_are_logs_and_contents(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, tmp_path)
    for draws, checksums in ((True, False), (True, True), (False, True)):
        told = (f"audit.draws={str(draws).lower()}", f"audit.checksums={str(checksums).lower()}")
        plan = training_plan(small(*told), run).saving
        assert (plan.draws, plan.contents) == (tmp_path if draws else None, checksums)
    assert small().audit.draws, "the default"


def ignore(progress: dict[str, Any]) -> None:
    return None


def numbers(tmp_path: Path) -> list[tuple[int, int]]:
    """(batch, simulation) of every draw; batch n of the script is simulation n."""
    rows = read_draws(draw_log_path(tmp_path, 0))
    return list(zip(rows["batch"].tolist(), rows["simulation"].tolist(), strict=True))


def test_a_training_logs_what_it_trained_on_also_over_a_restart(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, limits={"snapshot_batches": 7})
    plan = replace(plan, saving=replace(plan.saving, draws=tmp_path))
    feed = ScriptedFeed(make_batches(30), die_at=18)
    with pytest.raises(Interrupted):
        train(plan, feed, ignore, clock=TickingClock())
    assert max(numbers(tmp_path))[0] >= 14, "flushed at the snapshot"
    feed.die_at = None
    outcome = train(plan, feed, ignore, clock=TickingClock())
    found = numbers(tmp_path)
    assert len(found) == outcome["draws"] == 120
    assert found == [(n, n - 1) for n in range(1, 31) for _ in range(4)]
