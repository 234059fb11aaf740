"""What a training leaves behind and comes back to: snapshots, checkpoints, the model.

The trainer calls it on all ranks alike; rank 0 does the writing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_model

from penstock_server import checkpoint, snapshot
from penstock_server.checkpoint import CheckpointWriter
from penstock_server.draw_log import DrawLog, draw_log_path
from penstock_server.drawn import Drawn
from penstock_server.feed import Feed
from penstock_server.learner import Learner
from penstock_server.ranks import Ranks
from penstock_server.rounds import State
from penstock_server.turns import Turn, Turns
from penstock_surrogates import storage
from penstock_surrogates.normalisation import Normalisation

REST = 9  # snapshots under pressure take at most a tenth of the time


@dataclass(frozen=True)
class SavingPlan:
    """Where things go."""

    snapshots: Path  # in memory, on the host of rank 0
    model: Path  # folder of the trained surrogate
    checkpoints: Path | None = None  # on a disk that all ranks see; None: no checkpoints
    keep_checkpoints: int = 3
    draws: Path | None = None  # folder of the ranks' logs of draws; None: no logs
    contents: bool = False  # the logs have a checksum of each sample's fields
    about: Mapping[str, Any] = field(default_factory=dict)  # goes into the model's file

    def draw_log(self, rank: int, fields: Sequence[str]) -> DrawLog:
        """The log of a rank; fields of a batch, in the campaign's order."""
        path = None if self.draws is None else draw_log_path(self.draws, rank)
        return DrawLog(path, fields if self.contents else ())


class Saver:
    """Of one rank. Every method but `look` is called on all ranks, in the same order."""

    def __init__(
        self,
        plan: SavingPlan,
        learner: Learner,
        feed: Feed,
        ranks: Ranks,
        drawn: Drawn,
        log: DrawLog,
    ) -> None:
        self._plan, self._learner, self._feed, self._ranks = plan, learner, feed, ranks
        self._drawn, self._log = drawn, log
        self._writer: CheckpointWriter | None = None
        if plan.checkpoints is not None:
            self._writer = CheckpointWriter(plan.checkpoints, plan.keep_checkpoints)

    @property
    def error(self) -> str:
        """Why the newest checkpoint or the log of draws could not be written, or nothing."""
        return (self._writer.error if self._writer is not None else "") or self._log.error

    def restore(self, turns: Turns) -> None:
        """Back to the newest snapshot, else to the newest intact checkpoint, else to the start.

        Rank 0 reads the weights; they reach the others when the learner joins.
        """
        found, durable = self._find()
        kept = self._ranks.share(None if found is None else found.state())
        batches = 0 if kept is None else kept["state"]["batches"]
        self._feed.restore(batches)
        self._log.cut(batches)
        if kept is None:
            return
        learner, rank = self._learner, self._ranks.rank
        if found is not None:
            load_model(learner.model, str(found.model / "model.safetensors"))
            turns.snapshot, turns.durable = found.batch, durable
        learner.optimizer.load_state_dict(kept["optimizer"])
        learner.schedule.load_state_dict(kept["schedule"])
        normalisation = Normalisation.from_dict(kept["normalisation"])
        learner.normalisation = normalisation.to(learner.device)
        durable = self._ranks.share(durable)
        turns.resume(State(**{**kept["state"], "checkpoint_at": durable}), kept["seconds"])
        if rank < len(kept["ranks"]):
            turns.spent.seconds.update(kept["ranks"][rank].get("spent", {}))
        if len(kept["ranks"]) == self._ranks.world:
            turns.drawn = kept["ranks"][rank]["drawn"]
            self._drawn.restore([kept["ranks"][rank]["inputs"]])
            snapshot.set_random_states(kept["ranks"][rank]["random"], learner.device)
        elif rank == 0:  # other ranks than before: only the sum of their draws counts
            turns.drawn = sum(each["drawn"] for each in kept["ranks"])
            self._drawn.restore([each["inputs"] for each in kept["ranks"]])
        if turns.state.draining:
            self._feed.drain()

    def save(self, turns: Turns, turn: Turn) -> None:
        """A snapshot, a checkpoint out of it, or both, as the round says."""
        batch = turn.round.after
        self._feed.report()
        writer = self._writer if turn.round.checkpoint else None
        if writer is not None:
            self._feed.export_ledger(writer.ledgers(batch), batch)
        self._log.flush(durable=writer is not None)
        mine = {
            "drawn": turns.drawn,
            "inputs": self._drawn.state(),
            "spent": turns.spent.so_far(),
            "random": snapshot.random_states(self._learner.device),
        }
        each = self._ranks.gather(mine)  # nobody's draws, ledger or log are missing after this
        if each is None:
            return
        if turn.round.snapshot:
            began_s = turns.seconds
            self._write(turns, turn, each)
            turns.snapshot = batch
            turns.rests_until_s = turns.seconds + REST * (turns.seconds - began_s)
        if writer is not None:
            writer.commit(snapshot.at(self._plan.snapshots, batch))
        self.look(turns)

    def look(self, turns: Turns) -> None:
        """Tell the next round how far the checkpoint is."""
        if self._writer is None or self._ranks.rank:
            return
        turns.writing = self._writer.writing
        if self._writer.durable is not None:
            turns.durable = self._writer.durable

    def finish(self, turns: Turns) -> Path | None:
        """The last checkpoint stands, the model is written, the feed knows; gives its folder."""
        started = self._learner.normalisation is not None
        self._log.flush(durable=True)
        if self._ranks.rank == 0:
            if self._writer is not None:
                self._writer.wait()
                self.look(turns)
            if started:
                self._write_model(self._plan.model, counts(turns))
        safe, durable = self._ranks.share((turns.snapshot, turns.durable))
        if safe >= 0:
            self._feed.snapshot(safe)
        if durable >= 0:
            self._feed.settle(durable)
        return self._plan.model if started else None

    def _find(self) -> tuple[snapshot.Snapshot | None, int]:
        """What to go back to, and the newest durable batch; on rank 0."""
        if self._ranks.rank:
            return None, -1
        found = snapshot.newest(self._plan.snapshots)
        if self._writer is None:
            return found, -1
        self._writer.clear()
        if found is not None:
            standing = checkpoint.standing(self._writer.root)
            return found, max((c.batch for c in standing), default=-1)
        intact = checkpoint.newest_intact(self._writer.root)
        return (None, -1) if intact is None else (intact.snapshot, intact.batch)

    def _write(self, turns: Turns, turn: Turn, each: list[Any]) -> None:
        learner, root = self._learner, self._plan.snapshots
        assert learner.normalisation is not None
        about = counts(turns)
        state = {
            "state": asdict(turn.state),
            "seconds": turns.seconds,
            "optimizer": learner.optimizer.state_dict(),
            "schedule": learner.schedule.state_dict(),
            "normalisation": learner.normalisation.to_dict(),
            "ranks": each,
        }
        snapshot.write(
            root, turn.round.after, lambda folder: self._write_model(folder, about), state, about
        )
        snapshot.prune(root, in_use=self._writer.copying if self._writer is not None else None)

    def _write_model(self, folder: Path, about: Mapping[str, Any]) -> None:
        learner, plan = self._learner, self._learner.plan
        assert learner.normalisation is not None
        storage.save(
            folder,
            learner.model,
            plan.problem,
            learner.normalisation,
            plan.options or {},
            name=plan.surrogate,
            about={**self._plan.about, **about},
        )


def counts(turns: Turns) -> dict[str, Any]:
    """How far a training is: batches agreed on, draws, samples drawn at least once, seconds."""
    return {
        "batches": turns.done,
        "draws": int(turns.tally.drawn),
        "unique": int(turns.tally.admitted - turns.tally.unseen),
        "seconds": round(turns.seconds, 3),
    }
