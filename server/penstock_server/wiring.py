"""From one campaign file to what each process is told; pure, called by the supervisor."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from penstock_server import validation
from penstock_server.addresses import Addresses
from penstock_server.config import Campaign, CampaignError
from penstock_server.coordinator.plan import HELD_OUT, planned
from penstock_server.coordinator.settings import Rules
from penstock_server.coordinator.settings import Settings as CoordinatorSettings
from penstock_server.data_file import DataLayout
from penstock_server.design import Roles
from penstock_server.draw_log import draw_log_path
from penstock_server.feed import FeedSettings
from penstock_server.interpreters import Command
from penstock_server.keeper import KeeperSettings
from penstock_server.launch.launcher import Agency
from penstock_server.learner import LearningPlan
from penstock_server.patches import PatchSettings
from penstock_server.receiver import ReceiverSettings
from penstock_server.replay import Recording
from penstock_server.replay_feed import ReplayFeedSettings
from penstock_server.rounds import Limits
from penstock_server.run_folder import RunFolder
from penstock_server.saving import SavingPlan
from penstock_server.sizes import most_waiting, shard_names, shard_size
from penstock_server.stored_feed import StoredFeedSettings
from penstock_server.tables import FieldSpec
from penstock_server.trainer import TrainingPlan
from penstock_surrogates.problem import Field, Parameter, Problem

LEAST_NUMBERS = 100_000  # of simulations; a ledger has 256 bytes for each that it hears of


def problem_of(campaign: Campaign) -> Problem:
    """What the surrogate is to learn."""
    parameters = tuple(
        Parameter(name, *spec.box, spec.distribution)
        for name, spec in campaign.design.parameters.items()
    )

    def fields(specs: Mapping[str, FieldSpec]) -> dict[str, Field]:
        found = {}
        for name, spec in specs.items():
            components = spec.sent_shape[-1] if spec.components > 1 else 1
            found[name] = Field(spec.sent_shape, spec.role, spec.unit, components)
        return found

    return Problem(
        parameters,
        fields(campaign.step_fields),
        fields(campaign.input_fields),
        window=campaign.training.window,
        stride=campaign.training.stride,
        patch=campaign.training.patch,
    )


def patch_settings(campaign: Campaign, rank: int) -> dict[str, Any] | None:
    """Which boxes a rank sees of the fields; None: it sees them whole."""
    problem = problem_of(campaign)
    if problem.patch is None:
        return None
    return asdict(PatchSettings(problem.grid, problem.patch, problem.patched, campaign.seed, rank))


def coordinator_settings(
    campaign: Campaign,
    run: RunFolder,
    addresses: Addresses,
    points: Roles,
    session: str,
    settled: Mapping[int, list[tuple[int, int]]],
    done: Sequence[int] = (),
    absent: Sequence[int] = (),
) -> CoordinatorSettings:
    """session tells a resumption from a restart of the coordinator.

    done and absent are not simulated: a data set has them, or lacks them.
    """
    shards = shard_names(campaign)
    live, solver = campaign.liveness, campaign.solver
    return CoordinatorSettings(
        address=addresses.coordinator,
        database=str(run.root / "coordinator.sqlite"),
        campaign=run.campaign_number,
        name=campaign.name,
        run=f"{run.identity}/{session}",
        fields={name: spec.model_dump(mode="json") for name, spec in campaign.fields.items()},
        stream=campaign.stream.model_dump(mode="json"),
        shards=shards,
        simulations=planned(
            points,
            campaign_seed=campaign.seed,
            training_shards=[s for s in shards if s != HELD_OUT],
            shards_per_simulation=campaign.stream.shards_per_simulation,
        ),
        rules=Rules(
            silence_s=live.silence_s,
            start_deadline_s=live.start_deadline_s,
            step_deadline_s=solver.step_deadline_s,
            max_attempts=solver.max_attempts,
            most_refused=campaign.admission.most_refused,
            target_error=campaign.stop.target_error,
            seconds=campaign.stop.seconds,
        ),
        repeat_command=f"penstock rerun {shlex.quote(str(run.root))} {{simulation}}",
        metrics_port=addresses.metrics["coordinator"],
        settled={simulation: list(ranges) for simulation, ranges in settled.items()},
        done=list(done),
        absent=list(absent),
        server_keys=addresses.server_keys,
    )


def most_simulations(campaign: Campaign) -> int:
    """Numbers that a campaign can come to: one that is replaced leaves its place to another.

    A run may go on with a smaller design than it was begun with, hence the least.
    """
    design = campaign.design
    planned = design.simulations + design.validation + design.test
    return max(LEAST_NUMBERS, campaign.solver.max_attempts * planned)


def receiver_settings(
    campaign: Campaign, run: RunFolder, addresses: Addresses, shard: str, ledgers: Path | None
) -> ReceiverSettings:
    """ledgers: the folder of a checkpoint's ledger copies that this run goes on from."""
    held_out = shard == HELD_OUT
    training = campaign.training
    size = shard_size(campaign, shard)
    copy = ledgers / f"ledger-{shard}" if ledgers is not None else None
    policy = campaign.reservoir.policy if campaign.mode == "online" else "store"

    def arrays(specs: Mapping[str, FieldSpec]) -> dict[str, Any]:
        return {n: {"shape": list(s.sent_shape), "dtype": s.dtype} for n, s in specs.items()}

    return ReceiverSettings(
        shard=shard,
        campaign=run.campaign_number,
        folder=str(run.shard(shard)),
        address=addresses.shards[shard],
        feed=feed_address(run, shard),
        coordinator=addresses.coordinator,
        policy="keep" if held_out else policy,
        slots=size.slots,
        segment_steps=campaign.stream.segment_steps,
        window=1 if held_out else training.window,
        stride=1 if held_out else training.stride,
        max_steps=campaign.steps_sent,
        max_parts=max(64, campaign.solver.mpi_ranks),
        most_waiting=most_waiting(campaign),
        rows=size.rows,
        seed=campaign.seed,
        threshold=campaign.reservoir.threshold // training.ranks,
        most_simulations=most_simulations(campaign),
        parameters=list(campaign.design.parameters),
        fields=arrays(campaign.step_fields),
        inputs=arrays(campaign.input_fields),
        order=list(campaign.fields),
        patience_s=campaign.liveness.coordinator_patience_s,
        metrics_port=addresses.metrics[f"receiver-{shard}"],
        checksums=campaign.audit.checksums,
        ranges={n: s.range for n, s in campaign.fields.items() if s.range is not None},
        check=campaign.admission.check,
        journal=str(run.root / f"admissions-{shard}.bin") if campaign.audit.checksums else None,
        keeper=campaign.kept != "none",
        resume_ledger=str(copy) if copy is not None and copy.exists() else None,
        server_keys=addresses.server_keys,
        client_keys=addresses.client_keys,
    )


def keeper_settings(campaign: Campaign, run: RunFolder, addresses: Addresses) -> KeeperSettings:
    """What the process is told that writes the run's data set."""
    kept, design = campaign.kept, campaign.design
    fraction = {"held-out": 0.0, "all": 1.0}[kept] if isinstance(kept, str) else kept
    # Repeats under a new id take a row more; a fraction is met on average.
    most = math.ceil(fraction * design.simulations + 6 * math.sqrt(design.simulations) + 16)
    rows = {
        "train": min(most, design.simulations + design.simulations // 10 + 16) if fraction else 0,
        "validation": design.validation + 8 if design.validation else 0,
        "test": design.test + 8 if design.test else 0,
    }

    def arrays(specs: Mapping[str, FieldSpec], of: Mapping[str, Field]) -> dict[str, Any]:
        return {
            name: {
                "shape": list(spec.sent_shape),
                "dtype": spec.dtype,
                "role": spec.role,
                "unit": spec.unit,
                "components": of[name].components,
            }
            for name, spec in specs.items()
        }

    problem = problem_of(campaign)
    return KeeperSettings(
        path=str(run.data),
        finish=str(run.keeper_finish),
        shards=[str(run.shard(shard)) for shard in shard_names(campaign)],
        layout=asdict(
            DataLayout(
                campaign=campaign.name,
                run=run.identity,
                toml=campaign.to_toml(),
                parameters=list(design.parameters),
                rows={role: n for role, n in rows.items() if n},
                steps=campaign.steps_sent,
                fields=arrays(campaign.step_fields, problem.fields),
                inputs=arrays(campaign.input_fields, problem.inputs),
            )
        ),
        keep=kept,
        seed=campaign.seed,
        patience_s=campaign.liveness.coordinator_patience_s,
        metrics_port=addresses.metrics["keeper"],
    )


def training_plan(
    campaign: Campaign, run: RunFolder, recording: Recording | None = None
) -> TrainingPlan:
    """What all ranks are told alike. recording: of the run whose batches are trained on again."""
    training, reservoir, stop = campaign.training, campaign.reservoir, campaign.stop
    streams = campaign.mode == "online"
    return TrainingPlan(
        learning=LearningPlan(
            problem=problem_of(campaign),
            surrogate=training.surrogate,
            options=training.options,
            optimizer=training.optimizer,
            learning_rate=training.learning_rate,
            weight_decay=training.weight_decay,
            schedule=training.schedule,
            # A schedule goes by what was planned, also where the run has ended before.
            planned_batches=(recording.campaign if recording else campaign).planned_batches,
            loss=training.loss,
            training_step=training.training_step,
            dtype=training.dtype,
            device=training.device,
            seed=campaign.seed,
            constants=given_constants(campaign),
        ),
        limits=Limits(
            ranks=training.ranks,
            batch_size=training.batch_size,
            threshold=reservoir.threshold,
            band=reservoir.band,
            policy=reservoir.policy,
            draws_per_sample=reservoir.draws_per_sample if streams else None,
            snapshot_batches=training.snapshot_batches,
            validation_batches=campaign.validation.every_batches,
            checkpoint_s=campaign.checkpoint.every_s,
            stop_batches=stop.batches if streams else campaign.planned_batches,
        ),
        saving=SavingPlan(
            snapshots=run.snapshots,
            model=run.model,
            checkpoints=run.checkpoints,
            keep_checkpoints=campaign.checkpoint.keep,
            draws=run.root if campaign.audit.draws else None,
            contents=campaign.audit.checksums,
            about={"campaign": campaign.name, "run": run.identity},
        ),
        threads=training.threads,
        warm_up=reservoir.capacity if streams else 0,
    )


def given_constants(campaign: Campaign) -> dict[str, Any] | None:
    """Those of training.normalisation; raises CampaignError where they are of other fields."""
    folder = campaign.training.normalisation
    if folder is None:
        return None
    try:
        described = json.loads((Path(folder) / "model.json").read_text(encoding="utf-8"))
        constants: dict[str, Any] = described["normalisation"]
        told = [p["name"] for p in constants["parameters"]], list(constants["fields"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CampaignError(f"{folder}/model.json cannot be read: {error}.") from error
    problem = problem_of(campaign)
    wanted = list(problem.parameter_names), [*problem.fields, *problem.inputs]
    if told != wanted:
        raise CampaignError(
            f"training.normalisation = {folder} has constants for the parameters and fields "
            f"{told}; the campaign needs {wanted}."
        )
    return constants


def components(campaign: Campaign) -> dict[str, int]:
    """Components of each field and input field."""
    problem = problem_of(campaign)
    return {name: spec.components for name, spec in {**problem.fields, **problem.inputs}.items()}


def stored_feed_settings(
    campaign: Campaign, data: Path, rows: Sequence[int], rank: int
) -> dict[str, Any]:
    """Where a rank finds its samples in a data set."""
    training = campaign.training
    return asdict(
        StoredFeedSettings(
            path=str(data),
            rank=rank,
            world=training.ranks,
            batch_size=training.batch_size,
            window=training.window,
            stride=training.stride,
            segment_steps=campaign.stream.segment_steps,
            components=components(campaign),
            seed=campaign.seed,
            rows=list(rows),
            loader_workers=campaign.offline.loader_workers,
            patches=patch_settings(campaign, rank),
        )
    )


def replay_feed_settings(
    recording: Recording, stored: Mapping[str, Any], rank: int
) -> dict[str, Any]:
    """Where a rank finds the samples of a replay; stored: what `stored_feed_settings` gave."""
    return asdict(ReplayFeedSettings(dict(stored), str(draw_log_path(recording.folder, rank))))


def feed_settings(campaign: Campaign, run: RunFolder, rank: int) -> dict[str, Any]:
    """Where a rank finds the shard beside it."""
    return asdict(
        FeedSettings(
            shard=str(rank),
            folder=str(run.shard(str(rank))),
            address=feed_address(run, str(rank)),
            batch_size=campaign.training.batch_size,
            components=components(campaign),
            patience_s=campaign.liveness.coordinator_patience_s,
            patches=patch_settings(campaign, rank),
            device=campaign.training.device,
            rank=rank,
        )
    )


def slab_views(campaign: Campaign, run: RunFolder) -> tuple[str, dict[str, Any]]:
    """The validator's source while a stream runs: a function by name, and its settings."""
    training = [str(run.shard(s)) for s in shard_names(campaign) if s != HELD_OUT]
    return "penstock_server.views:open_views", {
        "held_out": str(run.shard(HELD_OUT)),
        "training": training,
    }


def stored_views(data: Path, rows: Mapping[str, Sequence[int]]) -> tuple[str, dict[str, Any]]:
    """The validator's source of a data set."""
    return "penstock_server.stored_views:open_views", {"path": str(data), "rows": dict(rows)}


def validator_settings(
    campaign: Campaign,
    run: RunFolder,
    addresses: Addresses,
    source: tuple[str, dict[str, Any]],
) -> validation.Settings:
    """What the process outside the all-reduce is told."""
    return validation.Settings(
        coordinator=addresses.coordinator,
        snapshots=str(run.snapshots),
        model=str(run.model),
        folder=str(run.root),
        problem=problem_of(campaign).to_dict(),
        steps=campaign.steps_sent,
        source=source[0],
        source_settings=source[1],
        title=campaign.name,
        history=str(run.history),
        loss=campaign.training.loss,
        every_batches=campaign.validation.every_batches,
        test=campaign.validation.test,
        opponents=campaign.validation.opponents,
        patience_s=campaign.liveness.coordinator_patience_s,
        metrics_port=addresses.metrics["validator"],
        client_keys=addresses.client_keys,
    )


def agency(campaign: Campaign, run: RunFolder, addresses: Addresses, command: Command) -> Agency:
    """What every agent is started with."""
    live = campaign.liveness
    return Agency(
        coordinator=addresses.coordinator,
        command=tuple(command.argv),
        log_dir=run.logs,
        python=sys.executable,
        # Empty: the variable of the shell that we were started in means another campaign.
        environment={**command.env, "PENSTOCK_KEYS": addresses.client_keys or ""},
        beat_s=live.beat_s,
        silence_s=live.silence_s,
        coordinator_patience_s=live.coordinator_patience_s,
    )


def feed_address(run: RunFolder, shard: str) -> str:
    return f"ipc://{run.scratch}/feed-{shard}"
