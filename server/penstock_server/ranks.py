"""The ranks of one training and what they tell each other; torch.distributed for counts is here.

Counts travel on a gloo group of their own, so that they never queue behind gradients.
"""

from __future__ import annotations

import datetime
from typing import Any

import torch
import torch.distributed as dist

from penstock_server.rounds import Tally


class RankLost(RuntimeError):
    """Another rank is gone or silent; all ranks have to go back to the snapshot together."""


def is_lost(error: BaseException) -> bool:
    """Whether an error of torch.distributed, perhaps out of a backward pass, means a lost rank."""
    if isinstance(error, (RankLost, dist.DistError)):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in said for word in ("gloo", "nccl"))


class Ranks:
    """This process among `world` ranks; with a world of 1 nothing is sent."""

    def __init__(self, rank: int = 0, world: int = 1) -> None:
        self.rank = rank
        self.world = world
        self._group: Any = None
        self._pending: tuple[torch.Tensor, Any] | None = None

    @classmethod
    def join(
        cls,
        rank: int,
        world: int,
        init_method: str | None,
        *,
        cuda: bool = False,
        silence_s: float = 300,
    ) -> Ranks:
        """Meet the other ranks at `init_method` ("file:///.." or "tcp://host:port").

        None: the caller has made the default process group already. A rank that says nothing for
        `silence_s` is taken for lost.
        """
        ranks = cls(rank, world)
        if world == 1:
            return ranks
        timeout = datetime.timedelta(seconds=silence_s)
        if init_method is not None:
            dist.init_process_group(
                "nccl" if cuda else "gloo",
                init_method=init_method,
                rank=rank,
                world_size=world,
                timeout=timeout,
            )
        ranks._group = dist.new_group(backend="gloo", timeout=timeout)
        return ranks

    def leave(self) -> None:
        """Give up the group; may be called twice."""
        if self._group is not None:
            self._group = None
            dist.destroy_process_group()

    def begin(self, tally: Tally) -> None:
        """Contribute to the next round without waiting for the others."""
        mine = torch.tensor(tally.vector(), dtype=torch.float64)
        work = None
        if self.world > 1:
            with _peers("the counts of a round"):
                work = dist.all_reduce(mine, group=self._group, async_op=True)
        self._pending = (mine, work)

    def finish(self) -> Tally:
        """The sum of what all ranks contributed."""
        if self._pending is None:
            raise RuntimeError("A round is finished only after it was begun.")
        total, work = self._pending
        self._pending = None
        if work is not None:
            with _peers("the counts of a round"):
                work.wait()
        return Tally.from_vector(total.tolist())

    def gather(self, value: Any) -> list[Any] | None:
        """The values of all ranks on rank 0, None on the others."""
        if self.world == 1:
            return [value]
        values = [None] * self.world if self.rank == 0 else None
        with _peers("the states of all ranks"):
            dist.gather_object(value, values, group=self._group)
        return values

    def gather_everywhere(self, value: Any) -> list[Any]:
        """The values of all ranks, in their order, on every rank."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        with _peers("the values of all ranks"):
            dist.all_gather_object(values, value, group=self._group)
        return values

    def share(self, value: Any) -> Any:
        """The value of rank 0 on every rank."""
        if self.world == 1:
            return value
        values = [value]
        with _peers("the state of rank 0"):
            dist.broadcast_object_list(values, group=self._group)
        return values[0]


class _peers:
    """Names a failed collective for what it is."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RuntimeError):  # of whatever kind: nothing else is done here
            raise RankLost(
                f"Expected {self._what}, but a rank is gone or silent: {error}. "
                "All ranks go back to the newest snapshot."
            ) from error
