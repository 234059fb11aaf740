"""What a shard takes in: bytes per second from k clients into the reservoir, against raw ZeroMQ.

ours: the coordinator and one receiver as processes, as a run starts them, and k client programs
that call `sim.send` as fast as it lets them. Every check of the door is on: credit, layout, table,
finite values, exactly once; --language c has them written in C (stream.c). Their array is copied,
as that of a solver which goes on computing in it; with --in-place it lies in memory of the stream
(`sim.empty`) and is not. peer: k programs that PUSH the same arrays, from 64 kB on without a copy
(with --peer-copies they copy as well; with --peer-buffer their sockets' send buffer is set as ours
is on one host, otherwise it is the system's), and one that PULLs them into preallocated memory and
does nothing else. Beside both a training loop with one thread. The arena is at least four times the
last-level cache and what clients may be ahead (not so at 128 MB from many clients), and every place
in it is written once. ours goes over TCP; --same-host adds a run through the memory that clients
lend to a receiver on their host.

Rates are taken between 25 % and 90 % of the bytes. Ours and the peer alternate; the ratio is the
median of the pairs' ratios. With --pin the training loop has the first core for itself on both
sides, and everything else the others. holds: at least 0.75 from 80 kB a step up, at least 0.5
below, and on one host at least 1.5 at 8 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from stage import Stage, pin, serve, stage

from penstock_server.addresses import free_ports
from penstock_server.config import parse

SIZES = {
    "8 kB": 8_000,
    "80 kB": 80_000,
    "800 kB": 800_000,
    "8 MB": 8_000_000,
    "128 MB": 128_000_000,
}
CLIENTS = (1, 4, 16)
FIRST, LAST = 0.25, 0.9  # before it memory is new, on both sides
WINDOW = 64  # MB that a client may be ahead, on both sides, or two steps if they are larger
LEAST = 24  # steps in all, so that there is a rate
SAME_HOST_BAR = 1.5

CAMPAIGN = """
name = "ingest"
[solver]
command = ["true"]
workers = {clients}
steps = {steps}
[design]
simulations = {clients}
[design.parameters]
p = {{ low = 0, high = 1 }}
[fields.u]
shape = [{values}]
[reservoir]
capacity = {capacity}
[stream]
window_bytes = {window}
shared_memory = {same_host}
[training]
batch_size = 2
[security]
mode = "{security}"
"""

OURS = """
import sys
import numpy as np
import penstock
values = np.random.default_rng(0).standard_normal(int(sys.argv[1])).astype("f4")
with penstock.connect() as link:
    for sim in link.simulations():
        for step in range(int(sys.argv[2])):
            sim.send(float(step), u=values)
"""

IN_PLACE = """
import sys
import numpy as np
import penstock
values = np.random.default_rng(0).standard_normal(int(sys.argv[1])).astype("f4")
with penstock.connect() as link:
    for sim in link.simulations():
        for step in range(int(sys.argv[2])):
            u = sim.empty("u", values.shape)
            if u[0] != values[0] or u[-1] != values[-1]:  # new: what a solver computes is not timed
                u[:] = values
            sim.send(float(step), u=u)
"""

RAW = """
import sys
import numpy as np
import zmq
values = np.random.default_rng(0).standard_normal(int(sys.argv[1])).astype("f4")
context = zmq.Context()
push = context.socket(zmq.PUSH)
push.setsockopt(zmq.SNDHWM, max(2, (1 << 26) // values.nbytes))
if "buffer" in sys.argv:
    from penstock.sender import LOCAL_BUFFER_BYTES
    push.setsockopt(zmq.SNDBUF, LOCAL_BUFFER_BYTES)
push.connect(sys.argv[3])
view = values.view("u1").data
for step in range(int(sys.argv[2])):
    push.send(view, copy=values.nbytes < 65536 or "copies" in sys.argv)
push.close(linger=-1)
context.term()
"""


def ours(
    values: int,
    steps: int,
    clients: int,
    security: str = "auto",
    same_host: bool = False,
    program: Sequence[str] = (sys.executable, "-c", OURS),
) -> float:
    """Bytes per second into the reservoir, from a client program that is told values and steps."""
    total = steps * clients
    text = CAMPAIGN.format(
        values=values, steps=steps, clients=clients, capacity=total, security=security,
        window=max(WINDOW << 20, 8 * values), same_host=str(same_host).lower(),
    )  # fmt: skip
    campaign = parse(text)
    with serve(campaign) as served:
        served.stage.train()
        for client in range(clients):
            command = [*program, str(values), str(steps)]
            served.stage.start_command(command, served.worker(f"w{client}"))
        return rate(served.admitted, total, values * 4, served.stage)


def compiled(folder: Path) -> Path:
    """stream.c with the client in C; needs a compiler and libzmq with its header."""
    program, client = folder / "stream", Path(__file__).parents[1] / "clients" / "c"
    source = Path(__file__).with_name("stream.c")
    flags = ["-O2", "-I", client, source, client / "penstock.c", "-lzmq", "-lm", "-o", program]
    subprocess.run(["cc", *flags], check=True)
    return program


def client(options: argparse.Namespace, folder: Path) -> Sequence[str]:
    """The program of ours, to be told values and steps."""
    if options.language == "c":
        return (str(compiled(folder)), *(["--in-place"] if options.in_place else []))
    return (sys.executable, "-c", IN_PLACE if options.in_place else OURS)


def raw(values: int, steps: int, clients: int, ways: Sequence[str] = ()) -> float:
    """Bytes per second into preallocated memory; ways: of its clients, "copies" and "buffer"."""
    total = steps * clients
    address = f"tcp://127.0.0.1:{free_ports(1)[0]}"
    file = Path("/dev/shm") / f"ingest-raw-{os.getpid()}"
    file.write_bytes(bytes(8))
    try:
        with stage() as here:
            here.start(__file__, "--pull", address, values, total, file)
            arrived = np.memmap(file, dtype="<u8", mode="r")
            here.train()
            for _ in range(clients):
                here.start("-c", RAW, values, steps, address, *ways)
            return rate(lambda: int(arrived[0]), total, values * 4, here)
    finally:
        file.unlink()


def pull(address: str, values: int, total: int, file: str) -> None:
    """The peer's receiver, in a process of its own."""
    arena = np.zeros((total, values), dtype="f4")  # written here: the pages are there
    arena[:] = 1
    arrived = np.memmap(file, dtype="<u8", mode="r+")
    socket = zmq.Context().socket(zmq.PULL)
    socket.setsockopt(zmq.RCVHWM, max(2, (1 << 26) // (4 * values)))
    socket.bind(address)
    for at in range(total):
        socket.recv_into(arena[at].data)
        arrived[0] = at + 1


def rate(arrived: Callable[[], int], total: int, n_bytes: int, here: Stage) -> float:
    """From FIRST to LAST of what is to come."""
    here.until(lambda: arrived() >= max(1, FIRST * total))
    first, began = arrived(), time.perf_counter()
    here.until(lambda: arrived() >= LAST * total)
    return (arrived() - first) * n_bytes / (time.perf_counter() - began)


def steps_of_each(n_bytes: int, clients: int, arena: float) -> int:
    """So many that the arena (MB) is filled, and that none is through while the rate is taken.

    With less than some times what the clients may be ahead, they would all have sent everything by
    then, and what is measured is a receiver that has the machine for itself.
    """
    arena = max(arena / (4 if n_bytes < 50_000 else 1), 4 * WINDOW * clients)
    return max(-(-LEAST // clients), round(arena * 1_000_000 / n_bytes / clients))


def measure(options: argparse.Namespace, program: Sequence[str]) -> list[dict[str, Any]]:
    rows, ours_by = [], partial(ours, program=program)
    ways = ["copies"] * options.peer_copies + ["buffer"] * options.peer_buffer
    for size in options.sizes:
        n_bytes = SIZES[size]
        for clients in options.clients:
            steps = steps_of_each(n_bytes, clients, options.arena)
            pairs, curve, same_host = [], [], []
            for _ in range(options.pairs):
                size_of = (n_bytes // 4, steps, clients)
                pairs.append((ours_by(*size_of), raw(*size_of, ways)))
                if options.same_host:
                    same_host.append(ours_by(*size_of, same_host=True) / pairs[-1][1])
                if options.curve:
                    curve.append(ours_by(*size_of, security="curve") / pairs[-1][0])
            row = {
                "size": size, "clients": clients, "steps": steps * clients,
                "ours": statistics.median(a for a, _ in pairs) / 1e9,
                "peer": statistics.median(b for _, b in pairs) / 1e9,
                "ratio": statistics.median(a / b for a, b in pairs),
                "bar": 0.75 if n_bytes >= 80_000 else 0.5,
                "pairs": [[a / 1e9, b / 1e9] for a, b in pairs],
                "curve": statistics.median(curve) if curve else None,
                "same_host": statistics.median(same_host) if same_host else None,
            }  # fmt: skip
            rows.append(row)
            if not options.json:
                lent = f"; on one host {row['same_host']:.2f} of raw" if same_host else ""
                encrypted = f"; with CURVE {row['curve']:.2f} of ours" if curve else ""
                print(
                    f"{size:>7} x {clients:2d} clients: {row['ours']:.2f} GB/s, raw "
                    f"{row['peer']:.2f}, ratio {row['ratio']:.2f} (bar {row['bar']}){lent}"
                    f"{encrypted}",
                    flush=True,
                )
    return rows


def holds(row: dict[str, Any]) -> bool:
    lent = row["same_host"] is None or row["size"] != "8 MB" or row["same_host"] >= SAME_HOST_BAR
    return bool(row["ratio"] >= row["bar"] and lent)


def main() -> None:
    if "--pull" in sys.argv:
        address, values, total, file = sys.argv[2:]
        pull(address, int(values), int(total), file)
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--clients", nargs="+", type=int, default=list(CLIENTS))
    parser.add_argument("--pairs", type=int, default=5, help="of ours and the peer's")
    parser.add_argument(
        "--arena",
        type=float,
        default=1024,
        help="MB, or 256 a client if that is more; a quarter below 50 kB a step",
    )
    parser.add_argument("--same-host", action="store_true", help="ours once more, on one host")
    parser.add_argument("--curve", action="store_true", help="ours once more, encrypted")
    parser.add_argument("--language", choices=("python", "c"), default="python", help="of ours")
    parser.add_argument(
        "--in-place", action="store_true", help="ours writes to the stream's memory"
    )
    parser.add_argument("--pin", action="store_true", help="a core for the training loop alone")
    parser.add_argument("--peer-copies", action="store_true", help="as a solver's clients have to")
    parser.add_argument("--peer-buffer", action="store_true", help="the send buffer of ours")
    parser.add_argument("--quick", action="store_true", help="80 kB and 8 MB, one client, 3 pairs")
    parser.add_argument("--json", action="store_true", help="only the line of JSON at the end")
    options = parser.parse_args()
    if options.quick:
        options.sizes, options.clients, options.pairs = ["80 kB", "8 MB"], [1], 3
    if options.pin:
        pin()
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        program = client(options, Path(folder))
        rows = measure(options, program)
    worst = min(rows, key=lambda row: row["ratio"] / row["bar"])
    print(
        json.dumps(
            {
                "name": "ingest",
                "ours": worst["ours"],
                "peer": worst["peer"],
                "ratio": worst["ratio"],
                "unit": f"GB/s at {worst['size']} a step from {worst['clients']} clients",
                "language": options.language,
                "in_place": options.in_place,
                "peer_copies": options.peer_copies,
                "peer_buffer": options.peer_buffer,
                "pinned": options.pin,
                "holds": all(map(holds, rows)),
                "rows": rows,
            }
        )
    )


if __name__ == "__main__":
    main()
