"""Samples per second of a GPU that is fed by a stream, against the same step on data of its own.

The set-up of SC'23: the MLP 6-256-256-1,000,000 with Adam, samples of 4 MB, batches of 10, a
synthetic stream. ours: a rank's whole training (`penstock_server.trainer.train`) on the slab of a
receiver process, into which a producer streams RATE samples a second, without limiter; batches come
ahead, on a stream of the GPU's own. in_turn: the same, but a batch is gathered and copied when it
is wanted. resident: the bare training step (`Learner.step`), one after the other, on batches that
lie on the device. A training stops after each of its rounds for one of `resident`, so the two
alternate; both wait for the device at the end of a round.

Samples per second are those of a round without the time in which snapshots were written
(snapshot_s, in with_snapshots it is in). They have 3 GB here and take seconds each; none is asked
for by batches or for validation, only for room in the reservoir. arrived: samples that the stream
brought meanwhile. time_share: what the rank did. kernel_share: how much of the time a kernel was
running, by torch.profiler, in a round of its own at the end.

holds: ours reaches at least 0.95 of resident (median of the rounds' ratios). SC'23 shows about 150
samples per second on one V100. Without a CUDA device the program ends; --device cpu and --values
try it out, and then holds is null.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from stage import PATIENCE_S, Served, serve
from torch.profiler import ProfilerActivity, profile

from penstock_server import wiring
from penstock_server.config import Campaign, parse
from penstock_server.feed import open_feed
from penstock_server.learner import Learner, LearningPlan
from penstock_server.trainer import train
from penstock_surrogates.batch import Batch
from penstock_surrogates.normalisation import Moments, Normalisation
from penstock_surrogates.problem import Problem

BATCH = 10
RATE = 100  # samples a second that the producer streams, at most, after half of the reservoir
WARM_UP = 20  # batches before each round
PROFILED = 100  # batches
RESIDENT = 20  # batches that lie on the device
BAR = 0.95
SIDES = ("ours", "in_turn")
STEPS = 1_000_000  # more than the producer can send

CAMPAIGN = """
name = "gpu-feed"
[solver]
command = ["true"]
steps = {steps}
[design]
simulations = 1
[design.parameters]
p0 = {{ low = 0, high = 1 }}
p1 = {{ low = 0, high = 1 }}
p2 = {{ low = 0, high = 1 }}
p3 = {{ low = 0, high = 1 }}
p4 = {{ low = 0, high = 1 }}
[fields.u]
shape = [{values}]
[reservoir]
capacity = {capacity}
threshold = {threshold}
[training]
batch_size = {batch}
device = "{device}"
snapshot_batches = 1000000
options = {{ hidden = [256, 256] }}
[validation]
every_batches = 1000000
"""

PROGRAM = """
import sys, time
import numpy as np
import penstock
values, steps, ahead = map(int, sys.argv[1:4])
pause_s = float(sys.argv[4])
random = np.random.default_rng(0)
u = [random.standard_normal(values, dtype="f4") for _ in range(4)]
with penstock.connect() as link:
    for sim in link.simulations():
        for step in range(steps):
            sim.send(step / steps, u=u[step % len(u)])
            if step > ahead:
                time.sleep(pause_s)
"""


class Round(NamedTuple):
    """What one round of a side had; seconds by activity in `time_s`."""

    samples_per_s: float
    with_snapshots: float = 0.0
    snapshot_s: float = 0.0
    arrived: int = 0
    time_s: Mapping[str, float] = MappingProxyType({})
    kernel_share: float | None = None


class Enough(Exception):
    """The training has been measured; its last snapshot and its model are not wanted."""


class Kernels:
    """How much of a stretch of time a kernel of the device was running."""

    def __init__(self) -> None:
        self._profile = profile(activities=[ProfilerActivity.CUDA], acc_events=True)
        self._profile.start()

    def share(self) -> float:
        self._profile.stop()
        spans = sorted(
            (event.time_range.start, event.time_range.end)
            for event in self._profile.events()  # type: ignore[no-untyped-call]
            if event.device_type.name == "CUDA" and not event.name.startswith(("Memcpy", "Memset"))
        )
        busy, reached = 0.0, spans[0][0]
        for start, end in spans:
            busy += max(0.0, end - max(start, reached))
            reached = max(reached, end)
        return float(busy / (reached - spans[0][0]))


class Resident:
    """The bare training step on batches that lie on the device."""

    def __init__(self, campaign: Campaign, device: str) -> None:
        training, problem = campaign.training, wiring.problem_of(campaign)
        self._learner = learner = Learner(
            LearningPlan(
                problem=problem, surrogate=training.surrogate, options=training.options,
                optimizer=training.optimizer, learning_rate=training.learning_rate, device=device,
            )
        )  # fmt: skip
        self._batches = [made_up(problem, learner.device) for _ in range(RESIDENT)]
        u, t = self._batches[0].fields["u"].cpu(), torch.tensor([0.0, 1.0], dtype=torch.float64)
        moments = {"u": Moments.of(u, 1), "t": Moments.of(t, 1)}
        constants = Normalisation.from_moments(problem, moments, learner.dtype)
        learner.normalisation = constants.to(learner.device)
        self.constants = constants.to_dict()

    def round(self, batches: int, profiled: bool) -> Round:
        self._run(WARM_UP)
        kernels = Kernels() if profiled else None
        began = time.perf_counter()
        self._run(batches)
        rate = BATCH * batches / (time.perf_counter() - began)
        return Round(rate, kernel_share=kernels.share() if kernels is not None else None)

    def _run(self, batches: int) -> None:
        for number in range(batches):
            loss = self._learner.step(self._batches[number % RESIDENT], BATCH)
        float(loss)


def made_up(problem: Problem, device: torch.device) -> Batch:
    return Batch(
        parameters=torch.rand(BATCH, len(problem.parameters), dtype=torch.float64, device=device),
        t=torch.rand(BATCH, 1, dtype=torch.float64, device=device),
        fields={"u": torch.randn(BATCH, 1, *problem.fields["u"].shape, device=device)},
        simulation=torch.zeros(BATCH, dtype=torch.int64, device=device),
        step=torch.zeros(BATCH, 1, dtype=torch.int64, device=device),
    )


class Rounds:
    """Hears of a training's progress, and has the other side's round after each of its own."""

    def __init__(self, options: argparse.Namespace, other: Resident) -> None:
        self._options, self._other = options, other
        self._begun: tuple[float, dict[str, Any]] | None = None
        self._kernels: Kernels | None = None
        self._from = WARM_UP  # the batch at which the next round may begin
        self._moved = (-1, time.monotonic())  # batches, and when the newest came
        self.own: list[Round] = []
        self.others: list[Round] = []

    def __call__(self, body: dict[str, Any]) -> None:
        done = body["batches"]
        if done != self._moved[0]:
            self._moved = done, time.monotonic()
        elif time.monotonic() > self._moved[1] + PATIENCE_S and not body["error"]:
            raise TimeoutError(f"No batch was trained on for {PATIENCE_S:.0f} s.")
        profiled = len(self.own) == self._options.rounds
        batches = PROFILED if profiled else self._options.batches
        if self._begun is None:
            if done >= self._from and not body["error"]:
                finish(self._options.device)
                self._kernels = Kernels() if profiled else None
                self._begun = time.perf_counter(), body
        elif done >= self._begun[1]["batches"] + batches:
            finish(self._options.device)
            self.own.append(self._round(body, time.perf_counter()))
            self.others.append(self._other.round(batches, profiled))
            self._begun, self._from = None, done + WARM_UP
            on_gpu = torch.device(self._options.device).type == "cuda"
            if len(self.own) == self._options.rounds + on_gpu:
                raise Enough

    def _round(self, body: dict[str, Any], now_s: float) -> Round:
        assert self._begun is not None
        began_s, before = self._begun
        seconds = {name: s - before["time_s"].get(name, 0.0) for name, s in body["time_s"].items()}
        saving_s = seconds.get("snapshot", 0.0)
        samples = BATCH * (body["batches"] - before["batches"])
        return Round(
            samples / (now_s - began_s - saving_s), samples / (now_s - began_s), saving_s,
            body["admitted"] - before["admitted"], seconds,
            self._kernels.share() if self._kernels is not None else None,
        )  # fmt: skip


def finish(device: str) -> None:
    """The device has done all that it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def streaming(options: argparse.Namespace) -> Iterator[tuple[Campaign, Served]]:
    text = CAMPAIGN.format(
        steps=STEPS, values=options.values, capacity=options.capacity, batch=BATCH,
        threshold=max(BATCH, options.capacity // 10), device=options.device,
    )  # fmt: skip
    campaign = parse(text)
    with serve(campaign) as served:
        program = (options.values, STEPS, options.capacity // 2, 1 / RATE)
        served.stage.start("-c", PROGRAM, *program, **served.worker("w0"))
        yield campaign, served


def measure_side(options: argparse.Namespace, ahead: bool) -> Rounds:
    with streaming(options) as (campaign, served):
        settings = wiring.feed_settings(campaign, served.run, 0)
        if not ahead:
            settings |= {"device": "cpu", "work_ahead": False}
        other = Resident(campaign, options.device)
        rounds = Rounds(options, other)
        plan = wiring.training_plan(campaign, served.run)
        plan = replace(
            plan,
            report_s=0.0,
            learning=replace(plan.learning, constants=other.constants),
            limits=replace(plan.limits, normalisation_simulations=0),
        )
        feed = open_feed(settings)
        try:
            with contextlib.suppress(Enough):
                train(plan, feed, rounds)
        finally:
            feed.close()
    return rounds


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for side in options.sides:
        began = time.monotonic()
        found = measure_side(options, ahead=side == "ours")
        pairs = list(zip(found.own[: options.rounds], found.others, strict=False))
        own, others = zip(*pairs, strict=True)
        seconds = [sum(each.time_s.values()) for each in own]
        row = {
            "side": side,
            "samples_per_s": statistics.median(each.samples_per_s for each in own),
            "resident": statistics.median(each.samples_per_s for each in others),
            "ratio": statistics.median(a.samples_per_s / b.samples_per_s for a, b in pairs),
            "with_snapshots": statistics.median(each.with_snapshots for each in own),
            "snapshot_s": [round(each.snapshot_s, 2) for each in own],
            "arrived": [each.arrived for each in own],
            "rounds": [(round(a.samples_per_s, 1), round(b.samples_per_s, 1)) for a, b in pairs],
            "time_share": {
                name: round(statistics.median(e.time_s[name] / s for e, s in zip(own, seconds)), 4)
                for name in own[-1].time_s
                if all(name in each.time_s for each in own)
            },
        }
        if len(found.own) > options.rounds:
            row["kernel_share"] = found.own[-1].kernel_share
            row["kernel_share_resident"] = found.others[-1].kernel_share
        rows.append(row)
        if not options.json:
            print(
                f"{side}: {row['samples_per_s']:,.0f} samples/s, {row['ratio']:.3f} of "
                f"{row['resident']:,.0f} resident; {time.monotonic() - began:.0f} s", flush=True,
            )  # fmt: skip
        forget()
    return rows


def forget() -> None:
    """What the side before had on the device is free again."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--batches", type=int, default=1000, help="in a round, after the warm-up")
    parser.add_argument("--rounds", type=int, default=5, help="of a side and of `resident` each")
    parser.add_argument("--values", type=int, default=1_000_000, help="of a sample, float32")
    parser.add_argument("--capacity", type=int, default=2_500, help="samples in the reservoir")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="300 batches, two rounds")
    parser.add_argument("--json", action="store_true", help="only the line of JSON at the end")
    options = parser.parse_args()
    if options.quick:
        options.batches, options.rounds = 300, 2
    cuda = torch.device(options.device).type == "cuda"
    if cuda and not torch.cuda.is_available():
        raise SystemExit("This needs a CUDA device; --device cpu --values 10000 tries it out.")
    rows = measure(options)
    first = rows[0]
    judged = cuda and first["side"] == "ours"
    print(
        json.dumps(
            {
                "name": "gpu_feed",
                "ours": first["samples_per_s"],
                "peer": first["resident"],
                "ratio": first["ratio"],
                "unit": f"samples/s of {options.values} values, batch {BATCH}",
                "holds": first["ratio"] >= BAR if judged else None,
                "device": torch.cuda.get_device_name(options.device) if cuda else "cpu",
                "rows": rows,
            }
        )
    )


if __name__ == "__main__":
    main()
