"""The database: whole transactions, the same records back, copies while it is in use."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from coordinator_desk import Desk, ended, refusal, settings

from penstock_server.coordinator import Settings, Store
from penstock_server.coordinator.records import Entry, Simulation


def test_what_was_written_is_read_back_the_same(tmp_path: Path) -> None:
    desk = Desk(settings(train=3, validation=1))
    worker = desk.started()
    first = desk.next(worker)
    second = desk.next(worker, ended(first))
    desk.report(refused=[refusal(second, "nan")])
    store = Store(tmp_path / "campaign.db")
    assert store.saved() is None
    store.write(desk.rows.values())
    store.write(desk.rows.values())
    store.close()
    store.close()
    saved = Store(tmp_path / "campaign.db").saved()
    assert saved is not None
    expected = desk.saved()
    assert saved.simulations == expected.simulations
    assert saved.standing == expected.standing
    assert saved.shards == [
        type(s)(s.shard, s.address, s.epoch)
        for s in expected.shards  # the rest is fleeting
    ]
    assert [lease.state for lease in saved.leases] == ["ended", "superseded"]
    assert [(w.worker, w.answer["simulation"]) for w in saved.workers] == [("w1", 1)]
    assert [entry.body for entry in saved.entries] == [entry.body for entry in expected.entries]


def test_a_transaction_that_fails_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "campaign.db")
    good = Simulation(1, "train", {}, 0, ["0"])
    bad = Simulation(2, "train", {}, 2**80, ["0"])
    with pytest.raises(OverflowError):
        store.write([good, bad])
    assert store.read(Simulation) == []
    store.write([good])
    assert store.read(Simulation) == [good]


def test_a_backup_is_a_database_of_its_own(tmp_path: Path) -> None:
    store = Store(tmp_path / "campaign.db")
    store.write([Entry("events", number, 0.0, {"what": "x"}) for number in range(5)])
    store.backup(tmp_path / "copy.db")
    assert len(Store(tmp_path / "copy.db").read(Entry)) == 5
    with sqlite3.connect(tmp_path / "copy.db") as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_settings_are_the_same_after_a_round_through_the_file(tmp_path: Path) -> None:
    chosen = settings(train=3, settled={2: [(0, 4)]})
    chosen.save(tmp_path / "settings.json")
    assert Settings.load(tmp_path / "settings.json") == chosen
    text = (tmp_path / "settings.json").read_text().replace('"silence_s"', '"silense_s"')
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(ValueError, match="silense_s"):
        Settings.load(tmp_path / "settings.json")


def test_a_database_of_other_shards_is_refused() -> None:
    desk = Desk(settings(shards=2))
    with pytest.raises(ValueError, match="same number of training ranks"):
        desk.restart(settings(shards=3))
