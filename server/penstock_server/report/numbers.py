"""Figures as a report writes them: measured values keep their digits; all sections call it."""

from __future__ import annotations

import math


def measured(value: float | None) -> str:
    """Three significant digits, also where they are zeros: 1.00, 0.0500, 7,250, 9.75e-08."""
    if value is None or not math.isfinite(value):
        return "unknown"
    if value == 0:
        return "0"
    rounded = float(f"{value:.2e}")
    if not 1e-3 <= abs(rounded) < 1e6:
        return f"{value:.2e}"
    decimals = max(0, 2 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:,.{decimals}f}"


def times(ratio: float) -> str:
    """How many times, in words where it is very many: 5.71, 1,790, 1.79 million."""
    if ratio < 1e6:
        return measured(ratio)
    if ratio < 1e9:
        return f"{measured(ratio / 1e6)} million"
    return f"{ratio:.2e}"
