"""The campaign file: TOML read into models that refuse unknown keys; every process gets its part.

`load` is what the command line calls, `parse` what tests call.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import Field, ValidationError, model_validator

from penstock_server import mistakes
from penstock_server.contradictions import (
    contradictions,
)
from penstock_server.mistakes import CampaignError, sentences
from penstock_server.tables import (
    Admission,
    Audit,
    Checkpoint,
    Design,
    FieldSpec,
    Fraction,
    Liveness,
    Offline,
    Reservoir,
    Security,
    Solver,
    Stop,
    Stream,
    Table,
    Training,
    Validation,
    Word,
    refuse,
)
from penstock_server.toml_lines import key_lines

__all__ = ["Campaign", "CampaignError", "load", "parse"]


class Campaign(Table):
    """Everything that one campaign file says, checked, with the defaults filled in.

    mode: train on the stream, on a stored data set, or only store one. keep: what a data set is
    written of; a number is the fraction of the training simulations.
    """

    name: Annotated[str, Field(pattern=mistakes.FOLDER, max_length=64)]
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    mode: Literal["online", "offline", "store"] = "online"
    keep: Literal["none", "held-out", "all"] | Fraction = "none"
    solver: Solver
    design: Design
    fields: Annotated[dict[Word, FieldSpec], Field(min_length=1)]
    stream: Stream = Stream()
    reservoir: Reservoir = Reservoir()
    offline: Offline = Offline()
    training: Training = Training()
    stop: Stop = Stop()
    validation: Validation = Validation()
    checkpoint: Checkpoint = Checkpoint()
    liveness: Liveness = Liveness()
    audit: Audit = Audit()
    admission: Admission = Admission()
    security: Security = Security()

    @model_validator(mode="after")
    def _consistent(self) -> Campaign:
        batch, reservoir = self.training.global_batch, self.reservoir
        filled = {
            "band": reservoir.band or 2 * batch,
            "threshold": reservoir.threshold or max(batch, reservoir.capacity // 10),
        }
        # The one place that may write into a frozen model: nobody has seen it yet.
        self.__dict__["reservoir"] = reservoir.model_copy(update=filled)
        return refuse(self, contradictions(self))

    @property
    def trains(self) -> bool:
        return self.mode != "store"

    @property
    def produces(self) -> bool:
        """Whether solvers run; not if the data set is there already."""
        return self.mode != "offline" or self.offline.dataset is None

    @property
    def kept(self) -> str | float:
        """What goes into this run's data set: "none", "held-out", "all" or a fraction."""
        if self.mode == "online":
            return self.keep
        return "all" if self.produces else "none"

    @property
    def step_fields(self) -> dict[str, FieldSpec]:
        """The fields that come with every step, in the order of the file."""
        return {n: f for n, f in self.fields.items() if f.role != "input"}

    @property
    def input_fields(self) -> dict[str, FieldSpec]:
        """The fields that come once per simulation."""
        return {n: f for n, f in self.fields.items() if f.role == "input"}

    @property
    def steps_sent(self) -> int:
        """Steps that leave the solver per simulation: of 0, 1, 2, .. every n-th, the first too.

        Without a known number of steps this is the ceiling.
        """
        every = max((f.every for f in self.step_fields.values()), default=1)
        return math.ceil(self.solver.step_ceiling / every)

    @property
    def segments_per_simulation(self) -> int:
        """The last segment may be shorter."""
        return math.ceil(self.steps_sent / self.stream.segment_steps)

    @property
    def samples_per_segment(self) -> int:
        """Windows of K steps inside a full segment of L."""
        return self.stream.segment_steps - self.training.span + 1

    @property
    def samples_per_simulation(self) -> int:
        full, rest = divmod(self.steps_sent, self.stream.segment_steps)
        return full * self.samples_per_segment + max(0, rest - self.training.span + 1)

    @property
    def planned_batches(self) -> int | None:
        """The number of batches, if it follows from the file; schedules need it."""
        if self.stop.batches is not None:
            return self.stop.batches
        if self.solver.steps is None or self.reservoir.draws_per_sample is None:
            return None
        samples = self.design.simulations * self.samples_per_simulation
        return math.ceil(samples * self.reservoir.draws_per_sample / self.training.global_batch)

    def to_toml(self) -> str:
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))

    def save(self, path: Path | str) -> None:
        """Writes the resolved campaign; `load` gives the same campaign back."""
        path = Path(path)
        part = path.with_name(f"{path.name}.part")  # a full disk must not cost the old one
        part.write_text(self.to_toml(), encoding="utf-8")
        part.replace(path)


def load(path: Path | str, overrides: Sequence[str] = ()) -> Campaign:
    """Reads a campaign file; `overrides` are the texts of --set, such as "training.ranks=2".

    Raises CampaignError, whose text has one sentence for each mistake.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CampaignError(
            f"The campaign file {path} cannot be read: {error.strerror}. "
            "Give the path of a TOML file; deploy/campaigns has examples."
        ) from error
    except UnicodeDecodeError as error:
        raise CampaignError(f"The campaign file {path} is not UTF-8 text: {error}.") from error
    return parse(text, overrides, name=str(path), folder=path.resolve().parent)


def parse(
    text: str, overrides: Sequence[str] = (), name: str = "campaign", folder: Path | None = None
) -> Campaign:
    """A campaign from TOML text; relative paths in it are relative to `folder`."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CampaignError(f"{name} is not valid TOML: {error}.") from error
    overridden = [_override(data, override) for override in overrides]
    _place_files(data, folder or Path.cwd())
    try:
        # By way of JSON: strict types there still take an array for a tuple.
        return Campaign.model_validate_json(json.dumps(data, default=str), strict=True)
    except ValidationError as error:
        lines = key_lines(text)
        raise CampaignError(*sentences(error, Campaign, name, lines, overridden)) from error


def _override(data: dict[str, Any], text: str) -> tuple[str, ...]:
    """Sets one key of the raw data; the value is TOML, or else a plain string."""
    key, equals, value = text.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    if not equals or not all(path):
        raise CampaignError(
            f"--set expects key=value with a dotted key such as training.ranks=2, got {text!r}."
        )
    table = data
    for depth, part in enumerate(path[:-1], start=1):
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise CampaignError(
                f"--set {text}: `{'.'.join(path[:depth])}` is a value, not a table."
            )
    try:
        table[path[-1]] = tomllib.loads(f"value = {value}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        table[path[-1]] = value.strip()
    return path


FILES = (
    ("design", "file"),
    ("offline", "dataset"),
    ("offline", "replay"),
    ("training", "normalisation"),
)


def _place_files(data: dict[str, Any], folder: Path) -> None:
    for table, key in FILES:
        given = data.get(table)
        if isinstance(given, dict) and isinstance(given.get(key), str):
            given[key] = str(folder / given[key])
