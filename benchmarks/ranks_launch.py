"""Ray Train against plain Ray actors: seconds to the first training step, and back after a kill.

The same `train` on the same scripted batches with two gloo ranks, in both arms; each repetition is
a fresh process with a fresh Ray, the arms interleaved. `start` is from the call (Ray is up) until
both ranks have taken their first batch; `recover` from `kill -9` of one rank until both ranks have
taken a batch again, from the newest snapshot.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RANKS, SIZE, BEFORE_KILL, DEADLINE_S = 2, 10, 100, 100.0


class TimedFeed:
    """Random batches without end, a line with the time for each; over when `stop` exists."""

    def __init__(self, settings: dict[str, Any]) -> None:
        import torch

        self._torch = torch
        self._stop = Path(settings["folder"]) / "stop"
        self._marks = (Path(settings["folder"]) / f"marks-{settings['rank']}").open("a")

    def stock(self, timeout_s: float) -> Any:
        from penstock_server.feed import Stock

        over = self._stop.exists()
        n = 0 if over else SIZE
        return Stock(10**6, n, n, 10**6, n, n, 10, False, False, over)

    def take(self, batch: int) -> Any:
        from penstock_surrogates.batch import Batch

        print(batch, time.time(), os.getpid(), file=self._marks, flush=True)
        time.sleep(0.005)  # a step of a larger network: the machine is not ours alone
        torch = self._torch
        return Batch(
            parameters=torch.rand(SIZE, 5, dtype=torch.float64),
            t=torch.rand(SIZE, 1, dtype=torch.float64),
            fields={"u": torch.rand(SIZE, 1, 32, 32)},
            simulation=torch.zeros(SIZE, dtype=torch.int64),
            step=torch.zeros(SIZE, 1, dtype=torch.int64),
        )

    def moments(self) -> Any:
        from penstock_surrogates.normalisation import Moments

        return {"u": Moments.of(self._torch.rand(100))}

    def nothing(self, *_: Any) -> None:
        """What a real feed is told."""

    restore = report = snapshot = settle = export_ledger = hold = drain = redraw = close = nothing


def open_feed(settings: dict[str, Any]) -> TimedFeed:
    """Called in the process of each rank."""
    return TimedFeed(settings)


def make_plan(folder: Path) -> Any:
    """The heat problem's network at 32 x 32, a snapshot every 50 batches."""
    from penstock_server.learner import LearningPlan
    from penstock_server.rounds import Limits
    from penstock_server.saving import SavingPlan
    from penstock_server.trainer import TrainingPlan
    from penstock_surrogates.problem import Field, Parameter, Problem

    parameters = tuple(Parameter(f"T{n}", 0.0, 1.0) for n in range(5))
    problem = Problem(parameters, {"u": Field((32, 32))}, t_range=(0.0, 1.0))
    return TrainingPlan(
        LearningPlan(problem, device="cpu"),
        Limits(RANKS, SIZE, 1, 2 * RANKS * SIZE, policy="fifo", snapshot_batches=50),
        SavingPlan(snapshots=folder / "snapshots", model=folder / "model"),
    )


def ours(folder: Path) -> Callable[[], None]:
    """Plain actors, as `penstock run` has them; gives the blocking call that trains."""
    from penstock_server.launch.ray_ranks import RankGroup

    settings = [{"folder": str(folder), "rank": rank} for rank in range(RANKS)]
    (folder / "logs").mkdir()
    plan = make_plan(folder)
    group = RankGroup(plan, "ranks_launch:open_feed", settings, "", folder, folder / "logs")

    def run() -> None:
        group.start()
        while not group.finished:
            group.poll()
            if group.failure:
                raise RuntimeError(group.failure)
            time.sleep(0.01)
        group.stop()

    return run


def peer(folder: Path) -> Callable[[], None]:
    """Ray Train's TorchTrainer with its own failure handling."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    trainer = TorchTrainer(
        train_in_peer,
        train_loop_config={"folder": str(folder)},
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(num_workers=RANKS),
        run_config=RunConfig(
            storage_path=str(folder / "storage"), failure_config=FailureConfig(max_failures=3)
        ),
    )
    return trainer.fit


def train_in_peer(config: dict[str, Any]) -> None:
    """The loop of one of Ray Train's workers; the process group is theirs."""
    import ray.train

    from penstock_server.ranks import Ranks
    from penstock_server.trainer import train

    folder, rank = Path(config["folder"]), ray.train.get_context().get_world_rank()
    feed = TimedFeed({"folder": str(folder), "rank": rank})
    train(make_plan(folder), feed, lambda body: None, Ranks.join(rank, RANKS, None))


def read_marks(folder: Path) -> list[list[tuple[float, int]]]:
    """For each rank (time, pid) of every batch."""
    marks = []
    for rank in range(RANKS):
        path = folder / f"marks-{rank}"
        lines = path.read_text().splitlines() if path.exists() else []
        split = [line.split() for line in lines]
        marks.append([(float(each[1]), int(each[2])) for each in split if len(each) == 3])
    return marks


def wait_for(marks_are: Callable[[list[list[tuple[float, int]]]], bool], folder: Path) -> Any:
    """The marks as soon as they are as wanted."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        marks = read_marks(folder)
        if marks_are(marks):
            return marks
        time.sleep(0.02)
    raise TimeoutError(f"The ranks did not come that far within {DEADLINE_S:g} s.")


def watch(folder: Path, called: float, found: dict[str, float]) -> None:
    """Notes the first step, kills one rank, notes the first step after it, asks for the end."""
    try:
        marks = wait_for(lambda m: all(len(each) >= BEFORE_KILL for each in m), folder)
        found["start"] = max(each[0][0] for each in marks) - called
        old = {each[-1][1] for each in marks}
        killed = time.time()
        os.kill(marks[1][-1][1], signal.SIGKILL)
        marks = wait_for(lambda m: all(each[-1][1] not in old for each in m), folder)
        first = [next(t for t, pid in each if pid not in old) for each in marks]
        found["recover"] = max(first) - killed
    finally:
        (folder / "stop").touch()


def measure(arm: str, folder: Path) -> dict[str, float]:
    """One repetition of one arm, in this process."""
    import ray

    began = time.time()
    ray.init(
        num_cpus=RANKS + 1,  # Ray Train's controller wants a share of its own
        include_dashboard=False,
        object_store_memory=80 << 20,
        log_to_driver=False,
        logging_level="ERROR",
        _temp_dir=str(folder / "ray"),
    )
    run = {"ours": ours, "peer": peer}[arm](folder)
    called = time.time()
    found = {"ray": called - began}
    watcher = threading.Thread(target=watch, args=(folder, called, found))
    watcher.start()
    with contextlib.redirect_stdout(sys.stderr):
        run()
    watcher.join()
    ray.shutdown()
    return found


def repeat(arm: str) -> dict[str, float]:
    """One repetition in a fresh process."""
    here = Path(__file__).resolve().parent
    with tempfile.TemporaryDirectory(prefix="penstock-", dir="/dev/shm") as folder:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                [str(here), *filter(None, [os.environ.get("PYTHONPATH")])]
            ),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",  # as in a campaign; Ray's own default is 15
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "GLOO_SOCKET_IFNAME": "lo",
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, str(here / "ranks_launch.py"), "--arm", arm, "--folder", folder]
        done = subprocess.run(
            command,
            env=environment,
            text=True,
            capture_output=True,
            timeout=3 * DEADLINE_S,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(
                f"The arm {arm!r} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
            )
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one repetition")
    parser.add_argument("--json", action="store_true", help="print nothing but the line of JSON")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--arm", choices=["ours", "peer"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and so the running arm is ended
    if given.arm:
        print(json.dumps(measure(given.arm, given.folder)))
        return
    samples: dict[str, list[dict[str, float]]] = {"ours": [], "peer": []}
    for number in range(1 if given.quick else given.repetitions):
        for arm in ("ours", "peer") if number % 2 == 0 else ("peer", "ours"):
            samples[arm].append(repeat(arm))
            if not given.json:
                seconds = {name: round(value, 2) for name, value in samples[arm][-1].items()}
                print(f"{arm:5} {seconds}", flush=True)
    rows = []
    for case in ("start", "recover"):
        mine, theirs = ([each[case] for each in samples[arm]] for arm in ("ours", "peer"))
        a, b = statistics.median(mine), statistics.median(theirs)
        rows.append(
            {
                "name": case,
                "ours": round(a, 3),
                "peer": round(b, 3),
                "ratio": round(a / b, 3),
                "unit": "s",
                "holds": a <= b,
                "samples": {"ours": mine, "peer": theirs},
            }
        )
    total = {**rows[1], "name": "ranks_launch", "holds": all(row["holds"] for row in rows)}
    total.pop("samples")
    print(json.dumps({**total, "rows": rows}))


if __name__ == "__main__":
    main()
