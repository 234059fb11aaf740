"""Batches and unique samples per second that reach the network: from the stream and from a disk.

ours: a rank's feed on the slab of a receiver process that synthetic producers fill as fast as they
can, by the way that solvers on the server's host take (--tcp: over TCP), without limiter; a
snapshot is announced every 20 batches, so that what was drawn may be evicted. Peers: PyTorch's
DataLoader with 4 workers on a stored data set, shuffled anew each epoch: one npz a simulation (the
published set-up), HDF5 and a mapped npy. The reservoir has room for a quarter of the data set, and
as much of the set stays in the page cache; the rest comes from the disk at every draw
(stored_sets.py says how, and a peer that got more from memory ends the program).

Batches of 10 samples. data: the network only reads the batch. mlp: the MLP 6-256-256-values takes a
training step with Adam. Weights are saved on neither side. Draws per second are batches times ten;
unique samples are those that were not drawn before in the same measurement, which cannot be more
than a stored set has. A set is made once for all rounds; the sides alternate; a ratio is the median
of the rounds' ratios.

holds: data-bound, ours draws at least 13 times the batches of npz (SC'23 reports 13) at each size.
The other ratios are reported as they are. At 4 MB a simulation has 25 steps where SC'23 had 100, so
that npz reads a quarter of what it would.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from stage import DISK, disk_folder, serve
from stored_sets import FORMATS, PARAMETERS, Sample, Size, Stored
from torch import nn
from torch.utils.data import DataLoader

from penstock_server.config import parse
from penstock_server.feed import FeedSettings, ShardFeed
from penstock_server.stored_feed import EpochBatches

SIZES = {"40 kB": Size(250, 100, 10_000), "4 MB": Size(16, 25, 1_000_000)}
QUICK = {"40 kB": 25, "4 MB": 4}  # simulations
BATCH = 10
WORKERS, PREFETCH = 4, 4
RESERVOIR = 0.25  # of the data set
SNAPSHOT_BATCHES = 20
LEAST_BATCHES = 8  # that are measured, however long they take
BAR = 13.0
LEAST_FROM_DISK = 0.8  # of what is not kept in the page cache
MANY_STEPS = 2_000_000  # more than a producer can send in the time

CAMPAIGN = """
name = "online-vs-disk"
[solver]
command = ["true"]
workers = {producers}
steps = {steps}
[design]
simulations = {producers}
[design.parameters]
p0 = {{ low = 0, high = 1 }}
p1 = {{ low = 0, high = 1 }}
p2 = {{ low = 0, high = 1 }}
p3 = {{ low = 0, high = 1 }}
p4 = {{ low = 0, high = 1 }}
[fields.u]
shape = [{values}]
[stream]
shared_memory = {same_host}
[reservoir]
capacity = {capacity}
threshold = 1
[training]
batch_size = {batch}
"""

PROGRAM = """
import sys
import numpy as np
import penstock
values, steps = map(int, sys.argv[1:])
u = np.random.default_rng(0).random(values, dtype="f4")
with penstock.connect() as link:
    for sim in link.simulations():
        for step in range(steps):
            u[step % values] = step / steps
            sim.send(step / steps, u=u)
"""

Draw = Callable[[], Sample]
Network = Callable[[Sample], None]


@contextmanager
def online(size: Size, capacity: int, producers: int, tcp: bool) -> Iterator[Draw]:
    text = CAMPAIGN.format(
        producers=producers, steps=MANY_STEPS, values=size.values, capacity=capacity, batch=BATCH,
        same_host=str(not tcp).lower(),
    )  # fmt: skip
    with serve(parse(text)) as served:
        for number in range(producers):
            worker = served.worker(f"w{number}")
            served.stage.start("-c", PROGRAM, size.values, MANY_STEPS, **worker)
        served.stage.until(lambda: served.admitted() >= capacity)
        feed = ShardFeed(
            FeedSettings(
                shard="0", folder=str(served.slab.folder), address=served.feed, batch_size=BATCH,
                components={"u": 1},
            )
        )  # fmt: skip
        number = 0

        def draw() -> Sample:
            nonlocal number
            if number and number % SNAPSHOT_BATCHES == 0:
                feed.snapshot(number)
            served.stage.until(lambda: feed.stock(0.1).ready == BATCH)
            number += 1
            batch = feed.take(number)
            return Sample(
                torch.cat([batch.parameters, batch.t], dim=1).float(),
                batch.fields["u"].reshape(BATCH, -1),
                batch.simulation * MANY_STEPS + batch.step[:, 0],
            )

        try:
            yield draw
        finally:
            feed.close()


@contextmanager
def stored(data: Stored) -> Iterator[Draw]:
    """Raises SystemExit if the disk was read less than it must have been."""
    data.keep()
    loader: DataLoader[Sample] = DataLoader(
        data,
        batch_sampler=EpochBatches(data.size.n_samples, BATCH, rank=0, world=1, seed=0, first=0),
        collate_fn=data.collate,
        num_workers=WORKERS,
        prefetch_factor=PREFETCH,
    )
    before = {child.pid for child in psutil.Process().children()}
    batches = iter(loader)
    workers = [child for child in psutil.Process().children() if child.pid not in before]
    drawn = 0

    def draw() -> Sample:
        nonlocal drawn
        drawn += 1
        batch: Sample = next(batches)
        return batch

    yield draw
    from_disk = sum(worker.io_counters().read_bytes for worker in workers)
    share = 1 - data.kept / data.size.simulations
    expected = drawn * BATCH * data.read_bytes * share
    if from_disk < LEAST_FROM_DISK * expected:
        raise SystemExit(
            f"The disk gave {from_disk / 1e6:.0f} MB for {drawn} batches, which need "
            f"{expected / 1e6:.0f} MB: the page cache of {data.folder} was not defeated. Name a "
            "folder on a local disk with --disk."
        )


def reading(_: Size) -> Network:
    def read(batch: Sample) -> None:
        batch.fields.sum()

    return read


def mlp(size: Size) -> Network:
    net = nn.Sequential(
        nn.Linear(PARAMETERS + 1, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(),
        nn.Linear(256, size.values),
    )  # fmt: skip
    adam = torch.optim.Adam(net.parameters(), fused=True)

    def learn(batch: Sample) -> None:
        adam.zero_grad()
        loss = nn.functional.mse_loss(net(batch.x), batch.fields)
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()

    return learn


MODES = {"data": reading, "mlp": mlp}


def rates(draw: Draw, network: Network, n_ids: int, seconds: float) -> dict[str, float]:
    """Batches and unique samples per second, after as many batches as two snapshots take."""
    began = time.perf_counter()
    for _ in range(2 * SNAPSHOT_BATCHES):
        network(draw())
        if time.perf_counter() > began + seconds:
            break
    seen = np.zeros(n_ids, dtype=bool)
    batches = unique = 0
    began = time.perf_counter()
    while (taken := time.perf_counter() - began) < seconds or batches < LEAST_BATCHES:
        batch = draw()
        network(batch)
        numbers = np.asarray(batch.number)
        unique += int(np.count_nonzero(~seen[numbers]))
        seen[numbers] = True
        batches += 1
    return {"batches": batches / taken, "unique": unique / taken}


def one(
    side: str, mode: str, sets: dict[str, Stored], size: Size, options: Any
) -> dict[str, float]:
    if side == "online":
        capacity = int(RESERVOIR * size.n_samples)
        with online(size, capacity, options.producers, options.tcp) as draw:
            n_ids = options.producers * MANY_STEPS
            return rates(draw, MODES[mode](size), n_ids, options.seconds)
    with stored(sets[side]) as draw:
        return rates(draw, MODES[mode](size), size.n_samples, options.seconds)


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for name in options.sizes:
        size = SIZES[name]
        if options.quick:
            size = replace(size, simulations=QUICK[name])
        with disk_folder(options.disk) as folder:
            sets = make_sets(folder, size, options.peers)
            for mode in options.modes:
                rounds = [
                    {side: one(side, mode, sets, size, options) for side in ("online", *sets)}
                    for _ in range(options.rounds)
                ]
                rows.append(row(name, mode, size, rounds))
                if not options.json:
                    print(told(rows[-1]), flush=True)
    return rows


def make_sets(folder: Path, size: Size, peers: list[str]) -> dict[str, Stored]:
    free, needed = shutil.disk_usage(folder).free, size.n_bytes * len(peers)
    if needed > 0.9 * free:
        raise SystemExit(
            f"The data sets take {needed / 1e9:.1f} GB and {folder.parent} has {free / 1e9:.1f}; "
            "name another folder with --disk, or one of the --peers at a time."
        )
    sets = {}
    for peer in peers:
        (folder / peer).mkdir()
        sets[peer] = FORMATS[peer](folder / peer, size, int(RESERVOIR * size.simulations))
        sets[peer].make()
    return sets


def row(name: str, mode: str, size: Size, rounds: list[dict[str, dict[str, float]]]) -> Any:
    def medians(what: str) -> dict[str, float]:
        return {side: statistics.median(r[side][what] for r in rounds) for side in rounds[0]}

    def ratios(what: str) -> dict[str, float]:
        return {
            side: statistics.median(r["online"][what] / r[side][what] for r in rounds)
            for side in rounds[0]
            if side != "online"
        }

    batches = medians("batches")
    return {
        "size": name, "mode": mode, "samples": size.n_samples,
        "reservoir": int(RESERVOIR * size.n_samples),
        "batches_per_s": batches,
        "draws_per_s": {side: BATCH * rate for side, rate in batches.items()},
        "unique_per_s": medians("unique"),
        "ratios": ratios("batches"), "unique_ratios": ratios("unique"),
        "bar": BAR if mode == "data" else None,
        "rounds": rounds,
    }  # fmt: skip


def told(row: dict[str, Any]) -> str:
    sides = ", ".join(
        f"{side} {rate:.3g} ({row['unique_per_s'][side]:.3g})"
        + (f" 1/{row['ratios'][side]:.3g}" if side in row["ratios"] else "")
        for side, rate in row["batches_per_s"].items()
    )
    return f"{row['size']} {row['mode']}: batches/s (unique samples/s): {sides}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--peers", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--rounds", type=int, default=5, help="of all sides, one after the other")
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    parser.add_argument("--producers", type=int, default=1, help="of the stream")
    parser.add_argument("--tcp", action="store_true", help="the stream, instead of lent memory")
    parser.add_argument("--disk", type=Path, default=DISK, help=f"folder on a disk, {DISK}")
    parser.add_argument("--quick", action="store_true", help="40 kB, a tenth of the data, 1 round")
    parser.add_argument("--json", action="store_true", help="only the line of JSON at the end")
    options = parser.parse_args()
    if options.quick:
        options.sizes, options.rounds, options.seconds = ["40 kB"], 1, 3
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "This DataLoader will create")  # 4 workers are the claim's
    rows = measure(options)
    judged = [row for row in rows if row["bar"] and "npz" in row["ratios"]]
    first = min(judged, key=lambda row: row["ratios"]["npz"]) if judged else rows[0]
    peer = "npz" if judged else options.peers[0]
    print(
        json.dumps(
            {
                "name": "online_vs_disk",
                "ours": first["batches_per_s"]["online"],
                "peer": first["batches_per_s"][peer],
                "ratio": first["ratios"][peer],
                "unit": f"batches/s of {BATCH} x {first['size']}, {first['mode']}, against {peer}",
                "holds": bool(judged) and all(row["ratios"]["npz"] >= BAR for row in judged),
                "rows": rows,
            }
        )
    )


if __name__ == "__main__":
    main()
