"""`penstock replay RUN`: the batches of an online run once more, and whether training comes out so.

An online run draws what the stream brings, so that no two are alike. What it drew stands in its log
of draws; the solvers are run again for these simulations, and training takes the same samples in
the same batches. Given solvers that reproduce themselves, as many ranks and the same kind of
processor, every weight comes out with the same bits.

The command calls `read_recording`, `replayed` and, after the run, `judge`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from penstock_server import run_folder
from penstock_server.config import Campaign, load
from penstock_server.draw_log import Draws, draw_log_path, joint_digest, read_draws
from penstock_server.tables import Stop

WEIGHTS = "model.safetensors"


class ReplayError(ValueError):
    """The run cannot be replayed; the text says why and what to do."""


@dataclass(frozen=True)
class Recording:
    """What a run left that a replay needs."""

    folder: Path
    campaign: Campaign
    ranks: list[Draws]

    @property
    def batches(self) -> int:
        """The number of the last batch."""
        return max(int(draws["batch"][-1]) for draws in self.ranks if len(draws))

    @property
    def samples(self) -> int:
        return sum(map(len, self.ranks))

    @property
    def simulations(self) -> set[int]:
        """Those of which something was drawn."""
        return {int(each) for draws in self.ranks for each in set(draws["simulation"].tolist())}


@dataclass(frozen=True)
class Verdict:
    """A replay held against its original. worst: the largest difference of two weights."""

    batches: int
    samples: int
    digest: str  # of the original's draws
    same_draws: bool
    n_weights: int
    same_weights: bool
    worst: float

    @property
    def ok(self) -> bool:
        return self.same_draws and self.same_weights


def read_recording(folder: Path) -> Recording:
    """Raises ReplayError for a run that has not ended, or did not log what it drew."""
    try:
        run = run_folder.reopen(folder)
    except run_folder.RunFolderError as error:
        raise ReplayError(str(error)) from error
    if run.running:
        raise ReplayError(
            f"The run {folder} is still running. Wait for it, or stop it with Ctrl-C."
        )
    campaign = load(run.campaign)
    if campaign.mode != "online":
        raise ReplayError(
            f'The run {folder} has mode = "{campaign.mode}": its batches follow from the seed, and '
            f"penstock run {run.campaign} gives them again."
        )
    if not (run.model / WEIGHTS).is_file():
        raise ReplayError(
            f"The run {folder} has no model to compare with: it did not reach its end. To go on "
            f"with it: penstock run --resume {folder}"
        )
    ranks = []
    for rank in range(campaign.training.ranks):
        path = draw_log_path(run.root, rank)
        if not path.is_file():
            raise ReplayError(
                f"{path} is missing: the run did not log what it drew (audit.draws = false, or a "
                "version of Penstock before there was a log)."
            )
        ranks.append(read_draws(path))
    if not any(map(len, ranks)):
        raise ReplayError(f"The run {folder} did not train on anything.")
    return Recording(run.root, campaign, ranks)


def replayed(recording: Recording) -> Campaign:
    """The campaign of the replay: its solvers fill a data set, training follows the log.

    Where the run kept everything, its data set is taken.
    """
    campaign, folder = recording.campaign, recording.folder
    stored = folder / "data.h5"
    dataset = str(stored) if campaign.keep == "all" and stored.is_file() else None
    tables = {
        "offline": campaign.offline.model_copy(
            update={"replay": str(folder), "dataset": dataset, "loader_workers": None}
        ),
        "training": campaign.training.model_copy(update={"normalisation": str(folder / "model")}),
        "reservoir": campaign.reservoir.model_copy(update={"policy": "reservoir"}),
        "stop": Stop(batches=recording.batches),
        "audit": campaign.audit.model_copy(update={"draws": True}),
    }
    return campaign.model_copy(update={"mode": "offline", "keep": "none", **tables})


def judge(recording: Recording, replay: Path) -> Verdict:
    """The draws and the final weights of both. Raises ReplayError if the replay left none."""
    ours = _weights(replay / "model" / WEIGHTS)
    theirs = _weights(recording.folder / "model" / WEIGHTS)
    if ours.keys() != theirs.keys():
        raise ReplayError(f"The networks of {recording.folder} and {replay} have other weights.")
    again = [read_draws(draw_log_path(replay, rank)) for rank in range(len(recording.ranks))]
    digest = joint_digest(recording.ranks)
    same = all(_same_bits(ours[name], theirs[name]) for name in ours)
    worst = max((_distance(ours[name], theirs[name]) for name in ours), default=0.0)
    return Verdict(
        batches=recording.batches,
        samples=recording.samples,
        digest=digest,
        same_draws=joint_digest(again) == digest,
        n_weights=sum(each.numel() for each in ours.values()),
        same_weights=same,
        worst=worst,
    )


def _weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except Exception as error:  # safetensors has errors of its own
        raise ReplayError(f"{path} cannot be read: {error}.") from error


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    if a.shape != b.shape:
        return math.inf
    return float((a.double() - b.double()).abs().max()) if a.numel() else 0.0
