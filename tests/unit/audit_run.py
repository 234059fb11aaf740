"""The folder of a finished run, written by the parts that write real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from audit_tables import clean

from penstock_server.audit.tables import Tables
from penstock_server.coordinator.records import Entry, Lease, Shard, Simulation, Standing
from penstock_server.coordinator.store import Store
from penstock_server.draw_log import draw_log_path
from penstock_server.ledger import Ledger

CAMPAIGN = """\
name = "small"
[solver]
command = ["./solver"]
steps = 6
[design]
simulations = 4
validation = 1
test = 1
[design.parameters]
a = { low = 0.0, high = 1.0 }
b = { low = 0.0, high = 1.0 }
[fields.u]
shape = [3]
[stream]
segment_steps = 2
[training]
ranks = 2
batch_size = 4
window = 2
[audit]
checksums = true
"""


def finished_run(folder: Path, tables: Tables | None = None) -> Path:
    """All that the audit reads, as the tables say it."""
    tables = tables or clean(2, 2)
    folder.mkdir(parents=True)
    (folder / "campaign.toml").write_text(CAMPAIGN)
    (folder / "lock").touch()
    store = Store(folder / "coordinator.sqlite")
    store.write(records(tables))
    store.close()
    (folder / "ledgers").mkdir()
    for shard, rows in tables.admitted.items():
        write_ledger(folder / "ledgers" / f"ledger-{shard}", rows)
    for shard, rows in (tables.lines or {}).items():
        (folder / f"admissions-{shard}.bin").write_bytes(rows.tobytes())
    for rank, rows in enumerate(tables.draws or ()):
        draw_log_path(folder, rank).write_bytes(rows.tobytes())
    return folder


def records(tables: Tables) -> list[Any]:
    found: list[Any] = [Standing(1, "run/1", "stopping", requested=tables.requested)]
    for each in tables.simulations:
        parameters = dict(zip("ab", each.parameters, strict=True))
        lease = each.id + 10
        found.append(
            Simulation(
                each.id, each.role, parameters, 1, ["0"], each.state, lease=lease,
                reason=each.reason, predecessor=each.predecessor,
            )
        )  # fmt: skip
        found.append(Lease(lease, each.id, "w1", 1, "confirmed", steps=each.steps))
    found += [Shard(shard) for shard in tables.admitted]
    training = tables.training
    for serial, state in enumerate(("training", "done" if training.done else "draining")):
        body = {"state": state, "why": training.why, "draws": training.draws}
        found.append(Entry("progress", serial, 10.0 + serial, body))
    return found


def write_ledger(path: Path, rows: Any) -> None:
    """Through a ledger in use, which has room at its end."""
    used = path.with_suffix(".used")
    ledger = Ledger(used)
    for row in rows:
        simulation, segment = int(row["simulation"]), int(row["segment"])
        ledger.admit(simulation, segment)
        if row["drawn"]:
            ledger.draw(simulation, segment)
        if row["n_steps"] >= 0:
            ledger.end(simulation, int(row["n_steps"]), 3)
    ledger.copy(path, 1)
    ledger.settle(1)
    ledger.copy(path)
    used.unlink()
