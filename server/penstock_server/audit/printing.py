"""An audit for a terminal, and as JSON for scripts; pure but for the table that rich draws."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table
from rich.text import Text

from penstock_server.audit.findings import BROKEN, HOLDS, UNKNOWN, spell
from penstock_server.audit.verdict import Audit

FORMAT = "penstock-audit-1"
MOST = 20  # findings that are printed; the JSON has all
COLOURS = {HOLDS: "green", BROKEN: "bold red", UNKNOWN: "yellow"}


def counts_table(audit: Audit) -> Table:
    """Three parties, each by itself."""
    table = Table("of completed simulations", box=None, header_style="bold", padding=(0, 2))
    for party in ("clients sent", "shards admitted", "trainer drew"):
        table.add_column(party, justify="right")
    for count in audit.counts:
        cells = (count.clients, count.shards, count.trainer)
        table.add_row(count.what, *("-" if n is None else f"{n:,}" for n in cells))
    return table


def check_lines(audit: Audit) -> Iterator[Text]:
    """A line a check: the verdict, the promise, the numbers."""
    for check in audit.checks:
        rest = ". ".join(part for part in (check.numbers, check.unknown) if part)
        text = Text(f"  {check.verdict:<8}", COLOURS[check.verdict])
        yield text.append(f"{check.promise}: {rest}", "default")


def finding_lines(audit: Audit, most: int = MOST) -> Iterator[str]:
    """What is wrong, by name; then what a stop rule left, which is not wrong."""
    findings = audit.findings
    if findings:
        yield "Findings"
    broken = [check for check in audit.checks if check.findings]
    each = most // max(1, len(broken))  # every broken promise is seen, if there are many findings
    shown = findings
    if len(findings) > most:
        shown = [finding for check in broken for finding in check.findings[:each]]
    yield from (f"  {finding.kind}: {finding.text}" for finding in shown)
    if len(findings) > len(shown):
        yield f"  ... and {len(findings) - len(shown):,} more; --json has all"
    if audit.untrained:
        yield "untrained_by_budget (--json has all)"
        for simulation, steps in list(audit.untrained.items())[:most]:
            yield f"  simulation {simulation}: sample {spell(steps)}"
        if len(audit.untrained) > most:
            yield f"  ... and {len(audit.untrained) - most:,} more simulations"


def to_json(audit: Audit, run: str) -> dict[str, Any]:
    """Everything, for scripts."""
    return {
        "format": FORMAT,
        "run": run,
        "clean": audit.clean,
        "verdict": audit.sentence,
        "counts": [vars(count) for count in audit.counts],
        "checks": [
            {
                "name": check.name,
                "promise": check.promise,
                "verdict": check.verdict,
                "numbers": check.numbers,
                "unknown": check.unknown,
                "findings": [vars(finding) for finding in check.findings],
            }
            for check in audit.checks
        ],
        "untrained_by_budget": {str(sim): steps for sim, steps in audit.untrained.items()},
        "draws": {"ranks": list(audit.digests), "all": audit.digest},
    }
