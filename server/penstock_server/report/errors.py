"""The errors in validation.json as values that all sections share; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock_server.report.files import at, number, table
from penstock_server.report.reading import Run

ROLES = ("test", "validation")  # the fairer first
WHO = ("network", "best", "constant", "linear")


@dataclass(frozen=True)
class Judged:
    """One emulator on the simulations of one role; `found` is Evaluation.to_dict()."""

    who: str  # of WHO
    label: str
    found: Mapping[str, Any]

    @property
    def value(self) -> float | None:
        """nRMSE over all fields."""
        return number(self.found, "value")

    @property
    def simulations(self) -> int:
        return int(number(self.found, "simulations") or 0)

    @property
    def fields(self) -> Mapping[str, Any]:
        return table(self.found, "per_field")

    def each(self) -> list[float]:
        """nRMSE over all fields of each simulation, ascending."""
        per_field = [table(errors, "simulations") for errors in self.fields.values()]
        if not per_field:
            return []
        return sorted(
            math.sqrt(sum((number(one, key) or 0.0) ** 2 for one in per_field) / len(per_field))
            for key in per_field[0]
        )


def roles(run: Run) -> list[str]:
    """Those that the network was judged on."""
    return [role for role in ROLES if at(run.validation, role, "network")]


def judged(run: Run, role: str) -> list[Judged]:
    """Network, best network, constant, linear: those that are there, in this order."""
    validation = run.validation
    last = int(number(validation, "report", "batch") or run.batches)
    best = number(validation, "best", "batch")
    own = table(validation, role, "network")
    found = [Judged("network", f"network, after {last:,} batches", own)]
    if best is not None and best != last:
        found.append(
            Judged(
                "best",
                f"best network, after {int(best):,} batches",
                table(validation, "best", role, "network"),
            )
        )
    for who, name in (("constant", "best constant"), ("linear", "linear emulator")):
        opponent = table(validation, role, who)
        kind = at(opponent, "kind")
        found.append(Judged(who, f"{name} ({kind})" if kind else name, opponent))
    return [one for one in found if one.found]


def headline(run: Run) -> tuple[str, dict[str, Judged]]:
    """The role that the report leads with, and its emulators by WHO; no role without any."""
    found = roles(run)
    return (found[0], {one.who: one for one in judged(run, found[0])}) if found else ("", {})


def unit_of(run: Run, field: str) -> str:
    return str(at(run.campaign, "fields", field, "unit") or "")
