"""The trainer with one rank and scripted batches."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from trainer_scripted import (
    Interrupted,
    ScriptedFeed,
    TickingClock,
    make_batches,
    make_plan,
)

from penstock_server import snapshot
from penstock_server.trainer import train
from penstock_server.turns import Diverged
from penstock_surrogates import storage
from penstock_surrogates.batch import Batch

torch.set_num_threads(1)


def ignore(progress: dict[str, Any]) -> None:
    return None


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(storage.load(folder).model.state_dict())


def test_a_training_leaves_a_model_that_predicts_in_physical_units(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, learning_rate=1e-2)
    batches = make_batches(300)
    outcome = train(plan, ScriptedFeed(batches), ignore, clock=TickingClock())
    assert outcome["why"] == "drained"
    assert (outcome["batches"], outcome["draws"], outcome["unique"]) == (300, 1200, 1200)
    assert outcome["loss"] < 0.2  # a constant has 1
    surrogate = storage.load(tmp_path / "model")
    assert surrogate.about["batches"] == 300
    predicted = surrogate.predict({"a": 0.0, "b": 5.0}, t=[0.0, 0.5])["u"]
    assert predicted.shape == (2, 3, 2)
    assert 290 < float(predicted[0].mean()) < 310


def test_the_constants_are_frozen_at_the_start(tmp_path: Path) -> None:
    feed = ScriptedFeed(make_batches(10))
    known = feed.moments()["u"]
    train(make_plan(tmp_path), feed, ignore, clock=TickingClock())
    kept = json.loads((tmp_path / "model" / "model.json").read_text())["normalisation"]
    assert kept["fields"]["u"]["offset"] == known.mean.tolist()
    first = snapshot.standing(tmp_path / "snapshots")[0]
    assert json.loads((first.model / "model.json").read_text())["normalisation"] == kept


def test_the_feed_hears_of_the_end_of_production_and_of_what_is_safe(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, limits={"snapshot_batches": 4})
    feed = ScriptedFeed(make_batches(10))
    train(plan, feed, ignore, clock=TickingClock())
    assert feed.calls == [
        ("restore", 0),
        ("snapshot", 0),
        ("snapshot", 4),
        ("snapshot", 8),
        ("drain",),
        ("snapshot", 10),
        ("settle", 10),
    ]


def test_two_snapshots_are_kept_and_say_how_far_they_are(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, limits={"snapshot_batches": 3})
    train(plan, ScriptedFeed(make_batches(10)), ignore, clock=TickingClock())
    kept = snapshot.standing(tmp_path / "snapshots")
    assert [s.batch for s in kept] == [9, 10]
    about = kept[0].about()
    assert (about["batch"], about["batches"], about["draws"]) == (9, 9, 36)


@pytest.mark.parametrize("surrogate", ["mlp", "trainer_scripted:Dropping"])
def test_a_restart_from_a_snapshot_continues_to_the_bit(tmp_path: Path, surrogate: str) -> None:
    def plan(name: str) -> Any:
        return make_plan(
            tmp_path / name,
            limits={"snapshot_batches": 7},
            surrogate=surrogate,
            schedule="cosine",
            planned_batches=30,
        )

    batches = make_batches(30)
    train(plan("calm"), ScriptedFeed(batches), ignore, clock=TickingClock())

    feed = ScriptedFeed(batches, die_at=18)
    with pytest.raises(Interrupted):
        train(plan("killed"), feed, ignore, clock=TickingClock())
    torch.manual_seed(999)
    feed.die_at = None
    outcome = train(plan("killed"), feed, ignore, clock=TickingClock())

    assert ("restore", 14) in feed.calls
    assert (outcome["batches"], outcome["draws"]) == (30, 120)
    calm, killed = weights(tmp_path / "calm/model"), weights(tmp_path / "killed/model")
    assert all(torch.equal(calm[name], killed[name]) for name in calm)


def wait_for_writers() -> None:
    """A checkpoint may still be on its way to the disk when its training has died."""
    for thread in threading.enumerate():
        if thread.name == "checkpoint":
            thread.join(10)


class Patient(ScriptedFeed):
    """Lets the writer finish now and then, however slow the disk is."""

    def take(self, batch: int) -> Batch:
        if batch % 10 == 0:
            wait_for_writers()
        return super().take(batch)


def test_a_resumed_training_uses_the_newest_checkpoint_that_is_intact(tmp_path: Path) -> None:
    batches = make_batches(40)
    calm = make_plan(tmp_path / "calm")
    train(calm, ScriptedFeed(batches), ignore, clock=TickingClock())

    plan = make_plan(tmp_path / "killed", limits={"checkpoint_s": 1e-6})
    feed = Patient(batches, die_at=30)
    with pytest.raises(Interrupted):
        train(plan, feed, ignore, clock=TickingClock())
    wait_for_writers()
    kept = sorted((tmp_path / "killed/checkpoints").glob("checkpoint-?????????"))
    assert len(kept) >= 2
    torn = next(kept[-1].rglob("state.pt"))
    torn.write_bytes(torn.read_bytes()[:-100])
    before = int(kept[-2].name.removeprefix("checkpoint-"))

    feed.die_at = None
    resumed = replace(plan, saving=replace(plan.saving, snapshots=tmp_path / "empty"))
    train(resumed, feed, ignore, clock=TickingClock())
    assert feed.calls[feed.calls.index(("restore", before)) + 1] == ("snapshot", before)
    there, here = weights(tmp_path / "calm/model"), weights(tmp_path / "killed/model")
    assert all(torch.equal(there[name], here[name]) for name in there)


def test_an_order_to_stop_ends_the_training_with_a_model(tmp_path: Path) -> None:
    def report(progress: dict[str, Any]) -> dict[str, Any]:
        return {"stop": progress["batches"] >= 5, "why": "the error is small enough"}

    plan = replace(make_plan(tmp_path), report_s=0.0)
    outcome = train(plan, ScriptedFeed(make_batches(1000)), report, clock=TickingClock())
    assert 5 <= outcome["batches"] < 10
    assert (outcome["why"], outcome["stop_why"]) == ("stopped", "the error is small enough")
    assert storage.load(tmp_path / "model").about["batches"] == outcome["batches"]


def test_progress_goes_from_waiting_to_done_with_shares_that_add_up(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    clock = TickingClock()
    feed = ScriptedFeed(
        make_batches(50), lambda n: clock.seconds > (1 if n < 10 else 5), sleep=clock.sleep
    )
    plan = replace(make_plan(tmp_path), report_s=0.05)
    train(plan, feed, seen.append, clock=clock)
    states = [progress["state"] for progress in seen]
    assert (states[0], states[-1]) == ("waiting", "done")
    assert "training" in states
    last = seen[-1]
    assert sum(last["time_share"].values()) == pytest.approx(1)
    assert last["time_share"]["wait_data"] > 0.5
    assert last["waits_s"]["threshold"] > 0.9
    assert last["waits_s"]["empty"] > 3
    assert last["error"] == ""


def test_a_stream_without_anything_ends_without_a_model(tmp_path: Path) -> None:
    outcome = train(make_plan(tmp_path), ScriptedFeed([]), ignore, clock=TickingClock())
    assert (outcome["why"], outcome["model"]) == ("nothing was admitted", None)
    assert not (tmp_path / "model").exists()


def test_a_loss_that_is_not_finite_is_reported_and_named(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    plan = make_plan(tmp_path, learning_rate=1e30, optimizer="sgd")
    with pytest.raises(Diverged, match=r"Lower training\.learning_rate"):
        train(plan, ScriptedFeed(make_batches(50)), seen.append, clock=TickingClock())
    assert seen[-1]["error"].startswith("Diverged: The loss of batch")
    assert not (tmp_path / "model").exists()


def test_a_training_step_of_the_users_own_is_used(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, training_step="trainer_scripted:absolute", learning_rate=1e-2)
    outcome = train(plan, ScriptedFeed(make_batches(200)), ignore, clock=TickingClock())
    assert outcome["loss"] < 0.5


def test_a_training_step_that_gives_one_number_is_refused(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, training_step="trainer_scripted:total_only")
    with pytest.raises(ValueError, match=r"one loss per sample, shape \(4,\)"):
        train(plan, ScriptedFeed(make_batches(3)), ignore, clock=TickingClock())
