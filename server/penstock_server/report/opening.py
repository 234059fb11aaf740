"""What a report opens with: the figures that matter and one honest sentence; for `writing`."""

from __future__ import annotations

from penstock_server import figures
from penstock_server.report.blocks import Card
from penstock_server.report.errors import headline
from penstock_server.report.files import at, number, table
from penstock_server.report.numbers import measured, times
from penstock_server.report.reading import Run


def subtitle(run: Run) -> str:
    why = at(run.summary, "why")
    state = str(at(run.summary, "state") or "ended")
    return f"Run {run.identity}: {state}" + (f" ({str(why).rstrip('.')})" if why else "") + "."


def verdict(run: Run) -> str:
    """The network against its opponents, whoever is better."""
    role, found = headline(run)
    network = found.get("network")
    if network is None:
        return "No error of the network is known: the run had no held-out simulations."
    if network.value is None:
        return f"On the {role} simulations the network's error is not finite: it has diverged."
    parts = []
    for who, name in (("constant", "best constant"), ("linear", "linear emulator")):
        value = found[who].value if who in found else None
        if value and network.value:
            ratio = value / network.value
            much = times(ratio if ratio >= 1 else 1 / ratio)
            parts.append(f"{much} times {'smaller' if ratio >= 1 else 'larger'} than the {name}'s")
    sentence = (
        f"On {network.simulations} {role} simulations that it never saw, the network's error "
        f"(nRMSE) is {measured(network.value)}"
    )
    if not parts:
        return sentence + "; no opponent was fitted."
    sentence += ": " + " and ".join(parts) + "."
    linear = found["linear"].value if "linear" in found else None
    if linear is not None and linear < network.value:
        sentence += " For this problem the linear emulator is the better surrogate."
    return sentence


def cards(run: Run) -> list[list[Card]]:
    """A row of errors, a row of counts."""
    role, found = headline(run)
    simulations = table(run.summary, "simulations")
    errors = [
        Card(
            f"nRMSE of the {name}",
            measured(found[who].value),
            f"{found[who].simulations} {role} simulations",
        )
        for who, name in (
            ("network", "network"),
            ("best", "best network"),
            ("constant", "best constant"),
            ("linear", "linear emulator"),
        )
        if who in found
    ]
    completed, requested = (
        figures.number(number(simulations, key) or 0.0) for key in ("completed", "requested")
    )
    admitted = figures.number(number(run.summary, "samples", "admitted") or 0.0)
    streamed = number(run.summary, "bytes", "streamed")
    written = number(run.summary, "bytes", "written_fields") or 0.0
    counts = [
        Card("simulations", completed, f"completed of {requested}"),
        Card("batches", f"{run.batches:,}", f"{admitted} samples admitted"),
        Card(
            "streamed",
            "unknown" if streamed is None else figures.size(streamed),
            f"{figures.size(written)} on a disk" if written else "nothing of it to a disk",
        ),
        Card("wall time", figures.clock_time(number(run.summary, "seconds") or 0.0), "in all"),
    ]
    return [errors, counts] if errors else [counts]
