"""The counter of seconds that Prometheus reads."""

from __future__ import annotations

import socket
import urllib.request

from penstock_server.metrics import Newest, serve_counts


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def scrape(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
        lines = page.read().decode().splitlines()
    samples = [line.rpartition(" ") for line in lines if not line.startswith("#")]
    return {name: float(value) for name, _, value in samples}


def test_the_seconds_of_a_rank_are_one_counter_with_activity_and_cause() -> None:
    newest, port = Newest(), free_port()
    serve_counts(port, "rank", {"rank": "1"}, newest.counts, newest.seconds)
    assert scrape(port) == {}
    spent = {
        "compute": 4.0, "wait empty by solver": 1.0, "wait limiter by solver": 0.5,
        "wait empty by reservoir": 0.25,
    }  # fmt: skip
    newest.take({"batches": 3, "time_s": spent, "over": False, "ranks_s": [spent]})
    assert scrape(port) == {
        'penstock_rank_batches{rank="1"}': 3.0,
        'penstock_rank_over{rank="1"}': 0.0,
        'penstock_rank_seconds_total{activity="compute",cause="",rank="1"}': 4.0,
        'penstock_rank_seconds_total{activity="wait",cause="reservoir",rank="1"}': 0.25,
        'penstock_rank_seconds_total{activity="wait",cause="solver",rank="1"}': 1.5,
    }


def test_the_coordinator_serves_the_seconds_of_its_workers() -> None:
    port = free_port()
    spent = {("computing", ""): 7.0}
    serve_counts(port, "coordinator", {}, lambda: {"leases": 2.0}, lambda: spent, whose="worker")
    assert scrape(port) == {
        "penstock_coordinator_leases": 2.0,
        'penstock_worker_seconds_total{activity="computing",cause=""}': 7.0,
    }
