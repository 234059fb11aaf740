"""Why a shard refuses what came, in one word: what the shard says and the coordinator acts on."""

from __future__ import annotations

from typing import Literal

RefusalKind = Literal[
    "nan",  # values that are not finite
    "range",  # outside the range that the campaign declares
    "physics",  # what the campaign's check demands does not hold
    "shape",  # sizes that do not fit the campaign, the header or the message
    "undeclared",  # a field that the campaign does not have, or not here
    "layout",  # no plan, a wrong one, gaps or overlaps, parts that disagree
    "credit",  # a segment that was not granted
    "inputs",  # input fields that did not come
    "role",  # held-out data for a training shard, or the other way round
    "steps",  # more than the campaign allows, or not as many as END says
    "unreproducible",  # a repeat with other values
    "unplanned",  # a simulation that no design has
    "superseded",  # a lease that is not in force any more
    "quarantined",  # of a simulation that has been refused
]

# No attempt can change these.
ALWAYS_THE_SAME: frozenset[RefusalKind] = frozenset({"nan", "range", "physics"})

# The client is answered; the coordinator knows already.
KNOWN: frozenset[RefusalKind] = frozenset({"superseded", "quarantined"})
