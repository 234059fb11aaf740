"""The validator's loop and process: snapshots in, `validated` requests out, files at the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import zmq
from test_validation_core import PROBLEM, STEPS, Held, Stream, a_model, held_out

from penstock.control import decode, encode
from penstock_server import examples_file, snapshot
from penstock_server.validation import Settings, read_history, run
from penstock_surrogates import load

torch.set_num_threads(1)
ROOT = Path(__file__).parents[2]
PACKAGES = [str(ROOT / name) for name in ("clients", "server", "surrogates")]
SOURCE = """
import test_validation_core as core

def open_source(settings):
    held = [*core.held_out("validation", settings["validation"], seed=1)]
    return core.Held(*held), core.Stream(20)
"""


def settings(folder: Path, **changes: Any) -> Settings:
    values: dict[str, Any] = {
        "coordinator": "tcp://127.0.0.1:9",
        "snapshots": str(folder / "snapshots"),
        "model": str(folder / "model"),
        "folder": str(folder / "run"),
        "problem": PROBLEM.to_dict(),
        "steps": STEPS,
        "source": "source:open_source",
        "every_batches": 100,
    }
    return Settings(**{**values, **changes})


class Trainer:
    """Writes the next snapshot whenever the validator has nothing to do; then the model."""

    def __init__(self, folder: Path, batches: list[int]) -> None:
        self.folder, self.batches = folder, batches

    def wait(self, _: float) -> None:
        if not self.batches:
            a_model(self.folder / "model", batches=999)
            return
        batch = self.batches.pop(0)
        root = self.folder / "snapshots"

        def save_model(path: Path) -> None:
            a_model(path, batch)

        snapshot.write(root, batch, save_model, {}, {})
        snapshot.prune(root)


def test_due_snapshots_are_reported_and_the_final_model_ends_it(tmp_path: Path) -> None:
    reports: list[dict[str, Any]] = []
    trainer = Trainer(tmp_path, [0, 40, 100, 140, 190, 260, 300])
    held = Held(*held_out("validation", 3, seed=1), *held_out("test", 2, seed=2))
    run(settings(tmp_path), held, Stream(20), reports.append, trainer.wait)
    assert [report["batch"] for report in reports] == [0, 100, 260, 300, 999]
    assert [report["final"] for report in reports] == [False] * 4 + [True]
    assert "test" in reports[-1]
    assert not any("test" in report for report in reports[:-1])
    figures = json.loads((tmp_path / "run" / "validation.json").read_text())
    assert [entry["batch"] for entry in figures["history"]] == [0, 100, 260, 300, 999]
    assert set(figures["validation"]) == set(figures["test"]) == {"network", "constant", "linear"}
    assert set(figures["best"]) >= {"batch", "value", "validation", "test"}
    assert figures["best"]["validation"]["network"]["value"] == figures["best"]["value"]
    over_t = figures["test"]["linear"]["per_field"]["u"]["nrmse_over_t"]
    assert len(over_t) == STEPS
    assert max(over_t) < 1e-10
    assert reports[-1]["picture"] == str(tmp_path / "run" / "picture.png")
    assert (tmp_path / "run" / "picture.png").stat().st_size > 10_000
    examples = examples_file.read(tmp_path / "run" / "examples.npz")
    assert examples.batch == 999
    assert load(tmp_path / "run" / "best").about["batches"] == figures["best"]["batch"]
    assert not (tmp_path / "snapshots" / "checked").exists()


def test_a_picture_that_fails_does_not_cost_the_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no fonts")

    monkeypatch.setattr("penstock_server.pictures.demo_picture", fail)
    reports: list[dict[str, Any]] = []
    held = Held(*held_out("validation", 2, seed=1))
    run(settings(tmp_path), held, Stream(5), reports.append, Trainer(tmp_path, []).wait)
    assert reports[-1]["picture"] is None
    assert reports[-1]["picture_error"] == "The picture was not drawn: no fonts"
    assert reports[-1]["value"] > 0


def test_the_process_reports_to_the_coordinator_and_ends(tmp_path: Path) -> None:
    (tmp_path / "source.py").write_text(SOURCE)
    a_model(tmp_path / "model")
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    with context.socket(zmq.ROUTER) as router:
        port = router.bind_to_random_port("tcp://127.0.0.1")
        told = settings(
            tmp_path,
            coordinator=f"tcp://127.0.0.1:{port}",
            source_settings={"validation": 2},
            patience_s=30.0,
        )
        told_path = tmp_path / "settings.json"
        told_path.write_text(json.dumps(vars(told)))
        path = os.pathsep.join([*PACKAGES, str(tmp_path), str(Path(__file__).parent)])
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock_server.validation", "--settings", told_path],
            env={**os.environ, "PYTHONPATH": path},
        )
        try:
            assert router.poll(60_000), "no report came"
            identity, frame = router.recv_multipart()
            request = decode(frame)
            assert request["kind"] == "validated"
            assert request["from"] == "validator/0"
            assert request["final"] is True
            assert request["batch"] == 30
            reply = {"kind": "orders", "stop": False, "request": request["request"]}
            router.send_multipart([identity, encode(reply)])
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()
            process.wait()


def test_settings_with_an_unknown_key_are_refused_in_a_sentence(tmp_path: Path) -> None:
    told = {**vars(settings(tmp_path)), "shard": "0"}
    (tmp_path / "settings.json").write_text(json.dumps(told))
    with pytest.raises(ValueError, match="unknown keys shard; valid are client_keys, coordinator"):
        Settings.read(tmp_path / "settings.json")
    del told["shard"]
    (tmp_path / "settings.json").write_text(json.dumps(told))
    assert Settings.read(tmp_path / "settings.json") == settings(tmp_path)


def test_the_history_is_read_where_there_is_a_loss(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    assert read_history(path) == []
    path.write_text("seconds,batches,loss\n0.1,0,\n0.2,10,0.5\n0.3,20,0.25\n")
    assert read_history(path) == [(10, 0.5), (20, 0.25)]
