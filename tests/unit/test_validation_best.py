"""The best network is kept: whole, the least error on equal simulations, over restarts."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_validation_core import PROBLEM, STEPS, Held, Stream, a_model, held_out

from penstock_server import snapshot
from penstock_server.best import Best, Standing, held
from penstock_server.validator import Validator
from penstock_surrogates import load, save

torch.set_num_threads(1)


def batches_of(folder: Path) -> int:
    return int(load(folder).about["batches"])


def test_only_a_smaller_error_replaces_the_best(tmp_path: Path) -> None:
    best = Best(tmp_path / "best")
    for batch, value, better in (
        (10, 0.5, True),
        (20, 0.6, False),
        (30, 0.5, False),
        (40, 0.4, True),
    ):
        model = a_model(tmp_path / f"model-{batch}", batch)
        assert best.offer(model, Standing(batch, value, 3)) is better
        assert best.standing is not None
        assert batches_of(tmp_path / "best") == best.standing.batch
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith("best")} == {"best"}


def test_a_network_that_has_diverged_is_never_the_best(tmp_path: Path) -> None:
    best = Best(tmp_path / "best")
    model = a_model(tmp_path / "model")
    assert not best.offer(model, Standing(10, math.nan, 3))
    assert not best.offer(model, Standing(10, math.inf, 3))
    assert not best.folder.exists()
    assert best.offer(model, Standing(20, 0.5, 3))
    best.rejudge(Standing(20, math.nan, 4))
    assert best.offer(model, Standing(30, 0.9, 4)), "what has no error is no rival"


def test_a_run_that_diverged_from_the_start_still_ends_with_a_report(tmp_path: Path) -> None:
    (trajectory,) = held_out("validation", 1, seed=1)
    broken = {name: values * math.nan for name, values in trajectory.fields.items()}
    held = Held(replace(trajectory, fields=broken))
    best = Best(tmp_path / "best")
    final = Validator(PROBLEM, STEPS, held, Stream(2), 1 << 20, best).finish(
        a_model(tmp_path / "m")
    )
    assert math.isnan(final.report["value"])
    assert final.report["best"] is None
    assert final.best == {}
    assert not (tmp_path / "best").exists()


@pytest.mark.parametrize("text", ["", "{", '{"batch": 1}', "[1]"])
def test_a_best_that_does_not_say_how_good_it_is_is_replaced(tmp_path: Path, text: str) -> None:
    model = a_model(tmp_path / "best", 10)
    (model / "standing.json").write_text(text)
    best = Best(tmp_path / "best")
    assert best.standing is None
    assert best.offer(a_model(tmp_path / "model", 20), Standing(20, 9.0, 3))
    assert batches_of(tmp_path / "best") == 20


def test_the_best_is_remembered_over_a_restart(tmp_path: Path) -> None:
    Best(tmp_path / "best").offer(a_model(tmp_path / "model"), Standing(30, 0.5, 3))
    again = Best(tmp_path / "best")
    assert again.standing == Standing(30, 0.5, 3)
    (tmp_path / "best" / "standing.json").write_text("{")
    assert Best(tmp_path / "best").standing is None


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    Best(tmp_path / "best").offer(a_model(tmp_path / "model"), Standing(30, 0.5, 3))
    (tmp_path / "best").rename(tmp_path / "best.old")
    (tmp_path / "best.part").mkdir()
    again = Best(tmp_path / "best")
    assert again.standing == Standing(30, 0.5, 3)
    assert again.offer(a_model(tmp_path / "next", 40), Standing(40, 0.4, 3))
    assert batches_of(tmp_path / "best") == 40


def test_a_model_that_is_gone_leaves_the_old_best(tmp_path: Path) -> None:
    best = Best(tmp_path / "best")
    best.offer(a_model(tmp_path / "model"), Standing(30, 0.5, 3))
    with pytest.raises(FileNotFoundError):
        best.offer(tmp_path / "nowhere", Standing(40, 0.4, 3))
    assert best.standing == Standing(30, 0.5, 3)
    assert batches_of(tmp_path / "best") == 30


def test_a_snapshot_that_is_pruned_meanwhile_can_still_be_read(tmp_path: Path) -> None:
    written = snapshot.write(tmp_path, 7, lambda folder: a_model(folder, 7) and None, {}, {})
    with held(written.model, tmp_path) as model:
        for batch in (8, 9, 10):
            snapshot.write(tmp_path, batch, lambda folder: a_model(folder) and None, {}, {})
        snapshot.prune(tmp_path)
        assert not written.model.exists()
        assert batches_of(model) == 7
    assert not model.exists()
    with pytest.raises(FileNotFoundError), held(written.model, tmp_path):
        pass


def test_errors_on_fewer_simulations_do_not_decide_what_is_best(tmp_path: Path) -> None:
    arrived = held_out("validation", 4, seed=1)
    a_model(tmp_path / "model", 10)
    held = Held(arrived[0])
    validator = Validator(PROBLEM, STEPS, held, Stream(2), 1 << 20, Best(tmp_path / "best"))
    first = validator.check(tmp_path / "model", 10)
    assert first is not None
    held.arrived = arrived
    second = validator.check(a_model(tmp_path / "next", 20), 20)
    assert second is not None
    assert second["value"] < first["value"], "else the old best would have stayed anyhow"
    assert second["best"] == {"batch": 10, "value": pytest.approx(second["value"])}
    standing = json.loads((tmp_path / "best" / "standing.json").read_text())
    assert standing["simulations"] == 4


def test_the_end_judges_the_best_beside_the_last(tmp_path: Path) -> None:
    held = Held(*held_out("validation", 3, seed=1), *held_out("test", 2, seed=2))
    best = Best(tmp_path / "best")
    validator = Validator(PROBLEM, STEPS, held, Stream(6), 1 << 20, best)
    good = a_model(tmp_path / "good", 10)
    validator.check(good, 10)
    bad = tmp_path / "bad"
    spoiled = load(good)
    with torch.no_grad():
        for weights in spoiled.model.parameters():
            weights.add_(3.0)
    about = {"batches": 20}
    save(bad, spoiled.model, PROBLEM, spoiled.normalisation, {"hidden": [8]}, about=about)
    final = validator.finish(bad)
    assert final.report["batch"] == 20
    assert final.report["best"]["batch"] == 10
    assert final.best["validation"].value < final.report["value"]
    assert final.report["best"]["test"] == final.best["test"].value != final.report["test"]["value"]


def test_a_run_may_keep_its_test_simulations_and_its_opponents_for_later(tmp_path: Path) -> None:
    held = Held(*held_out("validation", 3, seed=1), *held_out("test", 2, seed=2))
    stream = Stream(6)
    best = Best(tmp_path / "best")
    validator = Validator(
        PROBLEM, STEPS, held, stream, 1 << 20, best, roles=("validation",), fits=False
    )
    final = validator.finish(a_model(tmp_path / "model"))
    assert set(final.compared) == set(final.best) == {"validation"}
    assert "test" not in final.report
    assert final.report["linear"] is None
    assert len(stream.left) == 6, "nobody looked at the training stream"
