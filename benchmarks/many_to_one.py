"""The same arrays from k producers to one consumer: through Penstock, files and Redis.

The pattern of SimAI-Bench: many simulations, one trainer that gets every array into its memory.
ours: as in ingest.py, the coordinator, one receiver and k client programs, with every check of the
door on. Peers (carriers.py), k producers and a consumer that has an arena of the same size:

    tmpfs   np.save under another name and a rename in /dev/shm; the consumer looks for files, reads
            each straight into its place, removes it
    disk    the same on a disk, without fsync: what is removed soon may never reach the platter,
            which is to its advantage
    redis   a server of our own on a Unix socket, which keeps nothing on disk; a key an array, of
            which a list tells, pipelined a megabyte at a time, answers parsed by hiredis

Every producer hands over one array again and again. Ours copies it into the stream's window; with
--in-place it lies in memory of the stream (`sim.empty`), as that of a solver that computes there.
A producer is at most 64 MB ahead of its consumer, which is Penstock's window; --ahead changes that
for the peers. Beside all sides runs a training loop with one thread; with --pin it has the first
core for itself, and everything else the others. Rates are taken between 25 % and 90 % of the bytes.
The sides alternate; a ratio is the median of the rounds' ratios. --raw adds ZeroMQ into
preallocated memory without any check (ingest.py, --peer-buffer), as a scale: what it has here is
what ZeroMQ can.

holds: over TCP, which ours takes, at 80 kB at least 2 times the best of the others and at 8 MB at
least level with it; with --same-host, which adds a run through the memory that clients lend to a
receiver on their host, there at least 3 and 1.5 times; and no peer was left out. Redis needs
`apt-get install redis-server` (7.0 or newer) and, from a checkout, `pip install '.[bench]'`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import carriers
import ingest
import numpy as np
from stage import DISK, Stage, disk_folder, pin, stage

SIZES = ("8 kB", "80 kB", "800 kB", "8 MB")
BARS = {
    "penstock": {"80 kB": 2.0, "8 MB": 1.0},
    "same_host": {"80 kB": 3.0, "8 MB": 1.5},
}
PEERS = ("tmpfs", "disk", "redis")
RAW = "raw"  # a scale, neither ours nor a peer


@contextmanager
def memory_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="penstock-bench-", dir="/dev/shm") as folder:
        yield Path(folder)


def by_files(
    folder: Callable[[], AbstractContextManager[Path]],
    ahead: int,
    values: int,
    arrays: int,
    clients: int,
) -> float:
    """Bytes per second through the files of a new folder."""
    with folder() as where, stage() as here:
        return carried(here, "files", where, ahead, values, arrays, clients)


def by_redis(ahead: int, values: int, arrays: int, clients: int) -> float:
    """Bytes per second through a Redis server that is started here."""
    with stage() as here:
        socket = here.folder / "redis.sock"
        here.start_command(
            [
                "redis-server", "--port", "0", "--unixsocket", str(socket), "--save", "",
                "--appendonly", "no", "--dir", str(here.folder),
                "--logfile", str(here.folder / "errors.txt"),
            ],
            {},
        )  # fmt: skip
        here.until(socket.exists)
        carriers.announce(socket, clients)
        return carried(here, "redis", socket, ahead, values, arrays, clients)


def carried(
    here: Stage, carrier: str, where: Path, ahead: int, values: int, arrays: int, clients: int
) -> float:
    """Starts consumer, training loop and producers; arrays: of each, ahead: bytes of each."""
    total, program = arrays * clients, carriers.__file__
    with tempfile.NamedTemporaryFile(dir="/dev/shm", prefix="penstock-bench-") as counter:
        counter.write(bytes(8))
        counter.flush()
        arrived = np.memmap(counter.name, dtype="<u8", mode="r")
        consumer = here.start(program, "get", carrier, where, values, total, counter.name)
        assert consumer.stdout is not None and consumer.stdout.readline() == "ready\n"
        here.train()
        in_flight = max(2, ahead // (4 * values))
        for name in range(clients):
            here.start(program, "put", carrier, where, values, arrays, name, in_flight)
        return ingest.rate(lambda: int(arrived[0]), total, values * 4, here)


def measure(options: argparse.Namespace, disk: Path) -> list[dict[str, Any]]:
    ahead = int(options.ahead * 1_000_000)
    by_peer: dict[str, Callable[[int, int, int], float]] = {
        "tmpfs": partial(by_files, memory_folder, ahead),
        "disk": partial(by_files, partial(disk_folder, disk), ahead),
        "redis": partial(by_redis, ahead),
    }
    program = (sys.executable, "-c", ingest.IN_PLACE if options.in_place else ingest.OURS)
    ours = partial(ingest.ours, program=program)
    sides: dict[str, Callable[[int, int, int], float]] = {"penstock": ours}
    sides.update({peer: by_peer[peer] for peer in options.peers})
    if options.same_host:
        sides["same_host"] = partial(ours, same_host=True)
    if options.raw:
        sides[RAW] = partial(ingest.raw, ways=["buffer"])
    rows = []
    for size in options.sizes:
        n_bytes = ingest.SIZES[size]
        for clients in options.clients:
            arrays = ingest.steps_of_each(n_bytes, clients, options.arena)
            rounds: dict[str, list[float]] = {side: [] for side in sides}
            for _ in range(options.rounds):
                for side, run in sides.items():
                    rounds[side].append(run(n_bytes // 4, arrays, clients) / 1e9)
            rows.append(row(size, clients, arrays * clients, rounds))
            if not options.json:
                print(told(rows[-1]), flush=True)
    return rows


def row(size: str, clients: int, arrays: int, rounds: dict[str, list[float]]) -> dict[str, Any]:
    return {
        "size": size, "clients": clients, "arrays": arrays,
        "gb_per_s": {side: statistics.median(rates) for side, rates in rounds.items()},
        "against": {side: against(side, size, rounds) for side in (*BARS, RAW) if side in rounds},
        "rounds": rounds,
    }  # fmt: skip


def against(side: str, size: str, rounds: dict[str, list[float]]) -> dict[str, Any]:
    """One of ours, or the scale, against each of the peers."""
    ratios = {
        peer: statistics.median(a / b for a, b in zip(rounds[side], rounds[peer]))
        for peer in rounds
        if peer in PEERS
    }
    best = min(ratios, key=lambda peer: ratios[peer])
    return {
        "ratios": ratios,
        "best": best,
        "ratio": ratios[best],
        "bar": BARS.get(side, {}).get(size),
    }


def told(row: dict[str, Any]) -> str:
    each = ", ".join(f"{side} {rate:.2f}" for side, rate in row["gb_per_s"].items())
    ratios = "; ".join(
        f"{side} {a['ratio']:.2f} of {a['best']}" + (f" (bar {a['bar']})" if a["bar"] else "")
        for side, a in row["against"].items()
    )
    return f"{row['size']:>6} x {row['clients']:2d} producers, GB/s: {each}; {ratios}"


def absent(peers: list[str]) -> dict[str, str]:
    """Peers that this machine does not have, with what to do."""
    if "redis" not in peers:
        return {}
    lacking = []
    if shutil.which("redis-server") is None:
        lacking.append("the program redis-server (apt-get install redis-server)")
    if importlib.util.find_spec("redis") is None:
        lacking.append("the Python package redis (from a checkout: pip install '.[bench]')")
    return {"redis": f"Redis is left out: it needs {' and '.join(lacking)}."} if lacking else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--clients", nargs="+", type=int, default=list(ingest.CLIENTS))
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--same-host", action="store_true", help="ours once more, by lent memory")
    parser.add_argument(
        "--in-place", action="store_true", help="ours writes to the stream's memory"
    )
    parser.add_argument("--raw", action="store_true", help="ZeroMQ without anything, as a scale")
    parser.add_argument("--pin", action="store_true", help="a core for the training loop alone")
    parser.add_argument("--rounds", type=int, default=5, help="of all sides, one after the other")
    parser.add_argument(
        "--arena",
        type=float,
        default=1024,
        help="MB, or 256 a producer if that is more; a quarter below 50 kB an array",
    )
    parser.add_argument("--ahead", type=float, default=64, help="MB of a producer, peers only")
    parser.add_argument("--disk", type=Path, default=DISK, help=f"folder on a disk, {DISK}")
    parser.add_argument(
        "--quick", action="store_true", help="80 kB and 8 MB, 4 producers, 3 rounds"
    )
    parser.add_argument("--json", action="store_true", help="only the line of JSON at the end")
    options = parser.parse_args()
    if options.quick:
        options.sizes, options.clients, options.rounds = ["80 kB", "8 MB"], [4], 3
    if options.pin:
        pin()
    without = absent(options.peers)
    for why in without.values():
        print(why, file=sys.stderr)
    options.peers = [peer for peer in options.peers if peer not in without]
    if not options.peers:
        raise SystemExit("There is nobody to compare with; name another peer.")
    rows = measure(options, options.disk)
    found = [
        (row, side, row["against"][side]) for row in rows for side in BARS if side in row["against"]
    ]
    judged = [one for one in found if one[2]["bar"]]
    worst, side, a = min(judged or found, key=lambda one: one[2]["ratio"] / (one[2]["bar"] or 1))
    left_out = [peer for peer in PEERS if peer not in options.peers]
    over = "TCP" if side == "penstock" else "lent memory"
    print(
        json.dumps(
            {
                "name": "many_to_one",
                "ours": worst["gb_per_s"][side],
                "peer": worst["gb_per_s"][a["best"]],
                "ratio": a["ratio"],
                "unit": f"GB/s at {worst['size']} from {worst['clients']} producers over {over}, "
                f"against {a['best']}",
                "holds": bool(judged)
                and not left_out
                and all(a["ratio"] >= a["bar"] for _, _, a in judged),
                "in_place": options.in_place,
                "pinned": options.pin,
                "left_out": left_out,
                "rows": rows,
            }
        )
    )


if __name__ == "__main__":
    main()
