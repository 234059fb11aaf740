"""What a training's waiting is due to, out of the counts by which the ranks decided to wait; pure.

    start      nothing was trained on yet: the reservoir fills, the first simulations go on
    reservoir  producers have something and no room for it
    network    samples have come, and the receivers have not handed them out
    solver     all else: producers may send, and what they send is not enough

Whether a solver computes or waits for the network to take its step is seen by its client alone.
Where clients tell (`Previous.time_s`), `attribution` gives the network its part of "solver"; where
they do not, "solver" is both.
"""

from __future__ import annotations

from penstock_server.rounds import Limits, Tally

CAUSES = ("solver", "network", "reservoir", "start")


def cause_of(why: str, tally: Tally, limits: Limits, *, started: bool, rounds: int) -> str:
    """One of CAUSES for a round that waits because of `why`.

    rounds: that have waited in a row before. In the first one the shards' counts may be older than
    the batch that was just taken.
    """
    if not started:
        return "start"
    if tally.blocked or tally.pressure:
        return "reservoir"
    if why == "empty" and rounds and _handed_out_late(tally, limits):
        return "network"
    return "solver"


def _handed_out_late(tally: Tally, limits: Limits) -> bool:
    """Whether a batch could be there: of what is left at the end, or of unseen samples.

    Two batches, for one that was drawn may still be counted as unseen.
    """
    over = tally.over >= limits.ranks
    return over or tally.unseen >= 2 * limits.ranks * limits.batch_size
