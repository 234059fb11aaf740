"""A batch out of the reservoir: time of a draw while samples stream in, against other buffers.

Samples of 40 kB. ours: a rank's feed on the slab of a receiver process, which a client fills and
then keeps feeding; timed is what the training loop waits for, `stock` and `take`. alone: the same
without the feed's thread, which gathers a batch while the one before is trained on. Peers hold as
many samples in the training process, and a thread puts new ones at the same pace: TorchRL's
ReplayBuffer on LazyTensorStorage, a list of tensors with torch.stack, and a DataLoader over a
buffer of samples (the published design). Below all of them one bare index_select of as many
samples. Between two draws everybody takes the same training step, so that a buffer may prefetch if
it can.

us is the median of a draw. What a side does at every few draws doesn't show in it, and what another
thread does meanwhile may slow the step; so each row has blocks_us (a draw in the mean of 16 in a
row, the median of these) and loop_us (draw and step together, the mean) beside it.

holds: ours is at most 40 us above the bare gather in every case, and for batches of 64 and 256 at
least 2.5 times as fast as TorchRL and the list, 8 times as the DataLoader; null where sides were
left out. The peers need `pip install '.[bench]'`, from a checkout.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from stage import serve
from torch.utils.data import DataLoader, IterableDataset

from penstock_server.config import parse
from penstock_server.feed import FeedSettings, ShardFeed

VALUES = 10_000  # 40 kB
PUTS_PER_S = 200.0
SNAPSHOT_BATCHES = 20
BLOCK = 16  # draws
PEERS = ("torchrl", "list", "dataloader")
EXTRA_US, FASTER = 40.0, {"torchrl": 2.5, "list": 2.5, "dataloader": 8.0}

CAMPAIGN = """
name = "reservoir"
[solver]
command = ["true"]
steps = {steps}
[design]
simulations = 1
[design.parameters]
p = {{ low = 0, high = 1 }}
[fields.u]
shape = [{values}]
[reservoir]
capacity = {capacity}
threshold = 1
[training]
batch_size = {batch}
"""

PROGRAM = """
import sys, time
import numpy as np
import penstock
values, capacity, steps = map(int, sys.argv[1:4])
pause_s = float(sys.argv[4])
u = np.zeros(values, "f4")
with penstock.connect() as link:
    for sim in link.simulations():
        for step in range(steps):
            u[0] = step
            sim.send(float(step), u=u)
            if step >= capacity:
                time.sleep(pause_s)
"""


class Side(NamedTuple):
    """draw gives the fields of a batch, (b, ..); between is what else there is to do, not timed."""

    draw: Callable[[], torch.Tensor]
    between: Callable[[], None] = lambda: None


class Training:
    """What happens between two draws; of some milliseconds."""

    def __init__(self) -> None:
        self._net = torch.nn.Sequential(
            torch.nn.Linear(6, 256), torch.nn.ReLU(), torch.nn.Linear(256, VALUES)
        )
        self._x = torch.randn(10, 6)

    def step(self, fields: torch.Tensor) -> None:
        target = fields.reshape(len(fields), -1)[:10]
        loss = torch.nn.functional.mse_loss(self._net(self._x[: len(target)]), target)
        loss.backward()  # type: ignore[no-untyped-call]


@contextmanager
def penstock_feed(capacity: int, batch: int, draws: int, work_ahead: bool = True) -> Iterator[Side]:
    steps = capacity + 20 * draws + 100_000
    text = CAMPAIGN.format(steps=steps, values=VALUES, capacity=capacity, batch=batch)
    with serve(parse(text)) as served:
        served.stage.start(
            "-c", PROGRAM, VALUES, capacity, steps, 1 / PUTS_PER_S, **served.worker("w0")
        )
        served.stage.until(lambda: served.admitted() >= capacity)
        feed = ShardFeed(
            FeedSettings(
                shard="0", folder=str(served.slab.folder), address=served.feed, batch_size=batch,
                components={"u": 1}, work_ahead=work_ahead,
            )
        )  # fmt: skip
        number = 0

        def take() -> torch.Tensor:
            nonlocal number
            while not feed.stock(0.0).ready:
                feed.stock(0.001)
            number += 1
            return feed.take(number).fields["u"]

        def snapshot() -> None:
            """Now and then what was drawn may be evicted, as in training."""
            if number % SNAPSHOT_BATCHES == 0:
                feed.snapshot(number)

        try:
            served.stage.until(lambda: feed.stock(0.0).ready)
            yield Side(take, snapshot)
        finally:
            feed.close()


@contextmanager
def putting(put: Callable[[int, torch.Tensor], None], capacity: int) -> Iterator[None]:
    """A thread that puts samples at the pace of the stream."""
    over = threading.Event()

    def run() -> None:
        at = 0
        while not over.wait(1 / PUTS_PER_S):
            put(at % capacity, torch.full((VALUES,), float(at)))
            at += 1

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def torchrl(capacity: int, batch: int, draws: int) -> Iterator[Side]:
    from tensordict import TensorDict
    from torchrl.data import LazyTensorStorage, ReplayBuffer

    buffer = ReplayBuffer(storage=LazyTensorStorage(capacity), batch_size=batch)
    for at in range(0, capacity, 500):
        n = min(500, capacity - at)
        buffer.extend(TensorDict({"u": torch.zeros(n, VALUES)}, batch_size=[n]))

    def put(_: int, sample: torch.Tensor) -> None:
        buffer.add(TensorDict({"u": sample}, batch_size=[]))

    with putting(put, capacity):
        yield Side(lambda: buffer.sample()["u"])


@contextmanager
def plain_list(capacity: int, batch: int, draws: int) -> Iterator[Side]:
    samples = [torch.zeros(VALUES) for _ in range(capacity)]
    lock, rng = threading.Lock(), np.random.default_rng(0)

    def draw() -> torch.Tensor:
        chosen = rng.choice(capacity, batch, replace=False)
        with lock:
            return torch.stack([samples[at] for at in chosen])

    def put(at: int, sample: torch.Tensor) -> None:
        with lock:
            samples[at] = sample

    with putting(put, capacity):
        yield Side(draw)


class Samples(IterableDataset[torch.Tensor]):
    """One sample after the other out of a buffer behind a lock, for ever."""

    def __init__(self, samples: list[torch.Tensor], lock: threading.Lock) -> None:
        self._samples, self._lock = samples, lock

    def __iter__(self) -> Iterator[torch.Tensor]:
        rng = np.random.default_rng(0)
        while True:
            with self._lock:
                sample = self._samples[int(rng.integers(len(self._samples)))]
            yield sample


@contextmanager
def dataloader(capacity: int, batch: int, draws: int) -> Iterator[Side]:
    samples = [torch.zeros(VALUES) for _ in range(capacity)]
    lock = threading.Lock()

    def put(at: int, sample: torch.Tensor) -> None:
        with lock:
            samples[at] = sample

    loader = iter(DataLoader(Samples(samples, lock), batch_size=batch))
    with putting(put, capacity):
        yield Side(lambda: next(loader))


@contextmanager
def bare(capacity: int, batch: int, draws: int) -> Iterator[Side]:
    arena = torch.zeros(capacity, VALUES)
    rng = np.random.default_rng(0)
    indices = [torch.from_numpy(rng.choice(capacity, batch, False)) for _ in range(draws + 20)]
    turn = iter(indices)
    yield Side(lambda: arena.index_select(0, next(turn)))


SIDES = {
    "ours": penstock_feed, "alone": partial(penstock_feed, work_ahead=False), "torchrl": torchrl,
    "list": plain_list, "dataloader": dataloader, "bare": bare,
}  # fmt: skip


class Times(NamedTuple):
    """Of a draw, in microseconds; loop_us with the step of training."""

    us: float
    blocks_us: float
    loop_us: float


def time_draws(side: str, capacity: int, batch: int, draws: int) -> Times:
    """After a block of draws that warms up."""
    training, taken, began_loop = Training(), [], 0.0
    with SIDES[side](capacity, batch, draws) as (draw, between):
        for i in range(draws + BLOCK):
            began = time.perf_counter()
            if i == BLOCK:
                began_loop = began
            fields = draw()
            taken.append(time.perf_counter() - began)
            between()
            training.step(fields)
        loop_s = (time.perf_counter() - began_loop) / draws
    taken = taken[BLOCK:]
    blocks = [statistics.fmean(taken[i : i + BLOCK]) for i in range(0, draws - BLOCK + 1, BLOCK)]
    return Times(1e6 * statistics.median(taken), 1e6 * statistics.median(blocks), 1e6 * loop_s)


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for capacity in options.capacities:
        for batch in options.batches:
            found: dict[str, list[Times]] = {side: [] for side in options.sides}
            for _ in range(options.rounds):
                for side in options.sides:
                    found[side].append(time_draws(side, capacity, batch, options.draws))
            row: dict[str, Any] = {"capacity": capacity, "batch": batch}
            for what in Times._fields:
                row[what] = {
                    side: statistics.median(getattr(each, what) for each in rounds)
                    for side, rounds in found.items()
                }
            row["rounds"] = {side: [each.us for each in rounds] for side, rounds in found.items()}
            rows.append(row)
            if not options.json:
                each = ", ".join(f"{side} {us:.0f}" for side, us in row["us"].items())
                print(f"{batch} of {capacity:,}: {each} us", flush=True)
    return rows


def holds(row: dict[str, Any]) -> bool:
    us = row["us"]
    if us["ours"] > us["bare"] + EXTRA_US:
        return False
    return row["batch"] < 64 or all(us[p] >= factor * us["ours"] for p, factor in FASTER.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--capacities", nargs="+", type=int, default=[2_500, 25_000, 250_000])
    parser.add_argument("--batches", nargs="+", type=int, default=[10, 64, 256])
    parser.add_argument("--rounds", type=int, default=5, help="of all sides, one after the other")
    parser.add_argument("--draws", type=int, default=300, help="in a round")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--quick", action="store_true", help="2,500 samples, batches of 64")
    parser.add_argument("--json", action="store_true", help="only the line of JSON at the end")
    options = parser.parse_args()
    if options.quick:
        options.capacities, options.batches, options.rounds = [2_500], [64], 3
    if options.draws < BLOCK:
        parser.error(f"--draws must be at least {BLOCK}.")
    if "ours" not in options.sides:
        parser.error("--sides must have ours.")
    if "torchrl" in options.sides and importlib.util.find_spec("torchrl") is None:
        print("TorchRL is left out. From a checkout: pip install '.[bench]'.", file=sys.stderr)
        options.sides.remove("torchrl")
    torch.set_num_threads(1)
    rows = measure(options)
    middle = next((r for r in rows if r["batch"] == 64), rows[0])
    peers = [middle["us"][peer] for peer in PEERS if peer in options.sides]
    best = min(peers, default=None)
    whole = {"ours", "bare", *PEERS} <= set(options.sides)
    print(
        json.dumps(
            {
                "name": "reservoir",
                "ours": middle["us"]["ours"],
                "peer": best,
                "ratio": best and best / middle["us"]["ours"],
                "unit": f"us a batch of {middle['batch']} out of {middle['capacity']}",
                "holds": all(map(holds, rows)) if whole else None,
                "rows": rows,
            }
        )
    )


if __name__ == "__main__":
    main()
