"""The training of one rank, from top to bottom; `launch.ray_ranks` runs it in a process of its own.

What comes in is injected: the feed with this rank's shard, a function that posts progress and
returns orders, the other ranks, the clock. What goes out: snapshots, checkpoints, the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from penstock_server.drawn import Drawn
from penstock_server.feed import Feed
from penstock_server.learner import Learner, LearningPlan
from penstock_server.progress import Progress, Report
from penstock_server.ranks import RankLost, Ranks, is_lost
from penstock_server.rounds import Limits
from penstock_server.saving import Saver, SavingPlan
from penstock_server.time_spent import Clock, TimeSpent, WallClock, activities
from penstock_server.turns import Turns, check_loss
from penstock_surrogates.normalisation import Normalisation, add_moments

MOST_RANKS = 64  # that are told of one by one: a message has at most 100 kB


@dataclass(frozen=True)
class TrainingPlan:
    """What a rank needs of a campaign; the same on all ranks, made by the supervisor."""

    learning: LearningPlan
    limits: Limits
    saving: SavingPlan
    threads: int = 1
    warm_up: int = 0  # samples admitted before the draws are held against the design
    report_s: float = 0.5


def train(
    plan: TrainingPlan,
    feed: Feed,
    report: Report,
    ranks: Ranks | None = None,
    clock: Clock | None = None,
) -> dict[str, Any]:
    """Train until a stop rule holds; returns the last progress, why it ended, and the model.

    Raises Diverged (on all ranks alike), RankLost, or what the user's own code raises.
    """
    ranks, clock = ranks or Ranks(), clock or WallClock()
    torch.set_num_threads(plan.threads)
    spent = TimeSpent(clock)
    learner = Learner(plan.learning, ranks.rank, ranks.world)
    turns = Turns(feed, ranks, plan.limits, clock, spent)
    drawn = Drawn(plan.learning.problem.parameter_names, plan.warm_up)
    problem = plan.learning.problem
    whole = problem.patch is None  # of boxes there is no checksum that a shard would know
    log = plan.saving.draw_log(ranks.rank, tuple(problem.fields) if whole else ())
    saver = Saver(plan.saving, learner, feed, ranks, drawn, log)
    progress = Progress(report, plan.report_s, ranks.rank, learner, turns)
    try:
        saver.restore(turns)
        learner.join()
        why = ""
        for turn in turns:
            if turn.kind == "start":
                spent.on("start")
                learner.normalisation = freeze(feed, ranks, learner)
            elif turn.kind == "save":
                spent.on("validate" if plan.limits.validates(turn.round.after) else "snapshot")
                saver.save(turns, turn)
            elif turn.kind == "train":
                drawn.add(turn.batch, turns.tally.admitted, turn.round.after)
                log.add(turn.batch, turn.round.after + 1)
                spent.on("compute")
                turns.loss = learner.step(turn.batch, turn.round.total)
                spent.on("other")
            why = turn.round.why
            saver.look(turns)
            progress.look(turn, saver.error)
        spent.on("finish")
        check_last_loss(turns, ranks)
        model = saver.finish(turns)
        states = ranks.gather_everywhere(drawn.state())
        outcome = {
            **progress.body("done", saver.error),
            "why": why,
            "model": model and str(model),
            "drawn_inputs": drawn.total(states),
            "ranks_s": told_of_ranks(ranks.gather_everywhere(spent.so_far())),
        }
        progress.post(outcome)
    except Exception as error:
        if is_lost(error):  # all ranks start again, so nothing is done
            raise RankLost(f"A rank is gone or silent: {error}") from error
        progress.post(progress.body(progress.state, f"{type(error).__name__}: {error}"))
        raise
    finally:
        log.close()
    return outcome


def freeze(feed: Feed, ranks: Ranks, learner: Learner) -> Normalisation:
    """The constants out of what all shards hold now, or the ones that were given.

    The same on all ranks, and never changed again.
    """
    given = learner.plan.constants
    if given is not None:
        named = {**given, "dtype": learner.plan.dtype}
        return Normalisation.from_dict(named).to(learner.device)
    moments = add_moments(ranks.gather_everywhere(feed.moments()))
    normalisation = Normalisation.from_moments(learner.plan.problem, moments, learner.dtype)
    return normalisation.to(learner.device)


def told_of_ranks(ranks: list[dict[str, float]]) -> list[dict[str, float]]:
    """The seconds of each rank by activity; of more than MOST_RANKS one entry, their mean."""
    found = [activities(seconds) for seconds in ranks]
    if len(found) > MOST_RANKS:
        names = dict.fromkeys(name for each in found for name in each)
        found = [{n: sum(each.get(n, 0.0) for each in found) / len(found) for n in names}]
    return [{name: round(s, 3) for name, s in each.items()} for each in found]


def check_last_loss(turns: Turns, ranks: Ranks) -> None:
    """The loss of a batch is looked at with the next round; this is for the last one."""
    check_loss(sum(ranks.gather_everywhere(float(turns.loss))), turns.done)
