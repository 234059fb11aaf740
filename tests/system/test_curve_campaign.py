"""A whole campaign with CURVE on every socket: it runs as ever, and its keys stay its own."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from whole import (
    Run,
    Started,
    check_admissions,
    children_of,
    worker_pids,
    write_campaign,
)

from penstock.control import Asker
from penstock.errors import KeyRefused
from penstock.keys import ClientKeys
from penstock_server import run_folder
from penstock_server.curve import make_keys

pytestmark = pytest.mark.timeout(240)
START_S = 120.0  # Ray takes its time on a busy machine
CURVE = ("--set", "security.mode=curve")


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    made: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield made
    made.destroy(linger=0)


def key_folder(run: Run) -> Path:
    return run_folder.reopen(run.folder).keys


def keys_of(folder: Path) -> set[bytes]:
    lines = [line for file in folder.iterdir() for line in file.read_bytes().splitlines()]
    return {line.split()[2] for line in lines if b" = " in line}


def settings(run: Run, process: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((run.folder / "settings" / f"{process}.json").read_text())
    return told


def told_on_the_command_line(run: Run) -> list[bytes]:
    """Command line and environment of every process of the run."""
    found = []
    for pid in [run.process.pid, *children_of(run.process.pid)]:
        for name in ("cmdline", "environ"):
            try:
                found.append(Path(f"/proc/{pid}/{name}").read_bytes())
            except OSError:  # it has just ended
                continue
    return found


def refused(run: Run, process: str) -> float:
    """What Prometheus reads of it."""
    targets = json.loads((run.folder / "metrics.json").read_text())
    place = next(t["targets"][0] for t in targets if t["labels"]["process"] == process)
    with urllib.request.urlopen(f"http://{place}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    counts = [line for line in lines if "_handshakes_refused" in line and line[0] != "#"]
    return float(counts[0].split()[-1])


def knock(
    context: zmq.Context[zmq.Socket[bytes]], address: str, keys: ClientKeys | None
) -> zmq.Socket[bytes]:
    stranger = context.socket(zmq.DEALER)
    stranger.setsockopt(zmq.LINGER, 0)  # what it sends goes nowhere
    if keys is not None:
        keys.put_on(stranger)
    stranger.connect(address)
    stranger.send(b'{"kind": "stop", "from": "supervisor/0", "request": 1, "why": "a stranger"}')
    return stranger


def test_strangers_are_refused_and_the_campaign_runs_through_with_its_keys_unseen(
    tmp_path: Path, start: Started, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    other = ClientKeys.read(make_keys(tmp_path / "other").client)
    run = start(write_campaign(tmp_path, "--delay-ms", "30", simulations=40), *CURVE)
    run.wait_for(lambda: bool(worker_pids(run)), START_S)
    keys = keys_of(key_folder(run))
    assert len(keys) == 4
    for process in ("coordinator", "receiver-0"):
        address = settings(run, process)["address"]
        strangers = [knock(context, address, each) for each in (None, other)]
        run.wait_for(lambda: refused(run, process) >= 2)  # noqa: B023
        assert not any(stranger.poll(0) for stranger in strangers)
    seen = b"".join(told_on_the_command_line(run))
    assert not [key for key in keys if key in seen]
    assert f"PENSTOCK_KEYS={key_folder(run) / 'client'}".encode() in seen
    assert run.finish() == 0, run.output
    assert run.summary["security"] == "curve"
    assert run.summary["handshakes_refused"] >= 4
    assert run.summary["simulations"]["completed"] == 43
    check_admissions(run.folder, simulations=43, steps=20)
    for path in run.folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert not [key for key in keys if key in content], path
    assert not [key for key in keys if key.decode() in run.output]
    assert not key_folder(run).exists()


@pytest.mark.slow
def test_a_resumed_run_has_new_keys_and_refuses_the_old_ones(
    tmp_path: Path, start: Started
) -> None:
    """With mode = "store", which starts no Ray: the keys are the same supervisor's."""
    campaign = write_campaign(tmp_path, "--delay-ms", "100", simulations=30)
    store = (*CURVE, "--set", "mode=store")
    run = start(campaign, *store)
    run.wait_for(lambda: bool(worker_pids(run)), START_S)
    old = tmp_path / "old"
    shutil.copy2(key_folder(run) / "client", old)
    run.stop()
    again = start(campaign, "--resume", str(run.folder), *store)
    again.wait_for(lambda: bool(worker_pids(again)), START_S)
    assert (key_folder(again) / "client").read_text() != old.read_text()
    address = settings(again, "coordinator")["address"]
    with (
        Asker(address, "worker/old", keys=ClientKeys.read(old)) as asker,
        pytest.raises(KeyRefused, match="an earlier session"),
    ):
        asker.ask("hello", timeout_s=60.0, worker="old")
    assert again.finish() == 0, again.output
    assert again.summary["handshakes_refused"] > 0
