"""From designed points to simulations (ids, seeds, shards), and what a resumed one still needs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from penstock_server.coordinator.records import ROLES
from penstock_server.coordinator.settings import Planned

HELD_OUT = "held-out"
LAST_SEGMENT = (1 << 32) - 1


def planned(
    points: Mapping[str, Iterable[Mapping[str, float]]],
    *,
    campaign_seed: int,
    training_shards: Sequence[str],
    shards_per_simulation: int,
) -> list[Planned]:
    """All simulations of a campaign: ids count from 0, held-out roles first.

    points: role -> inputs. A training simulation goes to min(shards_per_simulation, all) shards,
    beginning one shard further than the one before; held-out roles go to their own shard.
    """
    unknown = set(points) - set(ROLES)
    if unknown:
        raise ValueError(f"The roles are {', '.join(ROLES)}; {sorted(unknown)} came.")
    width = min(shards_per_simulation, len(training_shards))
    simulations: list[Planned] = []
    for role in ROLES:
        for turn, parameters in enumerate(points.get(role, ())):
            shards = [
                training_shards[(turn + offset) % len(training_shards)] for offset in range(width)
            ]
            number = len(simulations)
            simulations.append(
                Planned(
                    id=number,
                    role=role,
                    parameters=dict(parameters),
                    seed=seed_of(campaign_seed, number),
                    shards=shards if role == "train" else [HELD_OUT],
                )
            )
    return simulations


def seed_of(campaign_seed: int, simulation: int) -> int:
    """A simulation's seed, the same in all its attempts; below 2^53, which JSON keeps exact."""
    digest = hashlib.sha256(f"{campaign_seed}/{simulation}".encode()).digest()
    return int.from_bytes(digest[:8], "little") & ((1 << 53) - 1)


def missing(settled: Iterable[Sequence[int]], segments: int | None) -> list[list[int]]:
    """The ranges of segments that are not settled, both ends included.

    segments: how many the simulation has; where that is not known the last range is open-ended.
    """
    last = LAST_SEGMENT if segments is None else segments - 1
    gaps: list[list[int]] = []
    expected = 0
    for first, end in sorted((int(a), int(b)) for a, b in settled):
        if first > expected:
            gaps.append([expected, min(first - 1, last)])
        expected = max(expected, end + 1)
    if expected <= last:
        gaps.append([expected, last])
    return [gap for gap in gaps if gap[0] <= gap[1]]
