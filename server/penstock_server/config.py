"""The campaign file: TOML read into models that refuse unknown keys; every process gets its part.

Defaults live here and nowhere else. `load` is what the command line calls, `parse` what tests call.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from penstock_server import mistakes
from penstock_server.contradictions import (
    Conflict,
    contradictions,
    field_conflicts,
    parameter_conflicts,
)
from penstock_server.mistakes import CampaignError, sentences
from penstock_server.toml_lines import key_lines

__all__ = ["Campaign", "CampaignError", "FieldSpec", "Parameter", "load", "parse"]

Count = Annotated[int, Field(ge=1)]
CountOrNone = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Word = Annotated[str, Field(pattern=mistakes.WORD, max_length=64)]
NameOrReference = Annotated[str, Field(pattern=mistakes.NAME_OR_REFERENCE)]
Reference = Annotated[str, Field(pattern=mistakes.REFERENCE)]
SecurityMode = Literal["auto", "curve", "trusted-network"]
AnyTable = TypeVar("AnyTable", bound="Table")


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=False)


class Solver(Table):
    """How a worker is started, and how long its simulations are."""

    command: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
    mpi_ranks: Count = 1
    workers: Count = 1
    steps: Count | None = None
    max_steps: Count | None = None
    step_deadline_s: Seconds = 300.0
    max_attempts: Count = 3
    env: dict[str, str] = {}

    @property
    def step_ceiling(self) -> int:
        """Steps of a simulation, or the most that it may have."""
        return self.steps or self.max_steps or 1


class Parameter(Table):
    """The range of one scalar input."""

    low: Number | None = None
    high: Number | None = None
    distribution: Literal["uniform", "log-uniform", "integer", "choice"] = "uniform"
    choices: tuple[Number, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Parameter:
        return _refuse(self, parameter_conflicts(self))

    @property
    def box(self) -> tuple[float, float]:
        """The least and the greatest value."""
        if self.distribution == "choice":
            return min(self.choices), max(self.choices)
        return float(self.low or 0.0), float(self.high or 0.0)


class Design(Table):
    """Which inputs are simulated; `file` is the CSV of sampler = "csv"."""

    sampler: Literal["random", "lhs", "halton", "sobol", "csv"] | Reference = "sobol"
    simulations: Count
    validation: CountOrNone = 0
    test: CountOrNone = 0
    parameters: dict[Word, Parameter] = {}
    file: str | None = None
    options: dict[str, Any] = {}

    @property
    def held_out(self) -> int:
        return self.validation + self.test


class FieldSpec(Table):
    """One named array. `shape` is what the solver computes, `sent_shape` what leaves it.

    range: the least and the greatest value that physics allows; what is outside is refused.
    """

    shape: tuple[Count, ...]
    dtype: Literal["float32", "float64"] = "float32"
    role: Literal["state", "input", "forcing", "quantity"] = "state"
    unit: str = ""
    components: Count = 1
    location: str = "node"
    every: Count = 1
    range: tuple[Number, Number] | None = None
    crop: tuple[tuple[CountOrNone, Count], ...] | None = None
    stride: tuple[Count, ...] | None = None
    keep_components: tuple[CountOrNone, ...] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> FieldSpec:
        return _refuse(self, field_conflicts(self))

    @property
    def grid_shape(self) -> tuple[int, ...]:
        """The axes that crop and stride speak of: all but the component axis."""
        return self.shape[:-1] if self.components > 1 else self.shape

    @property
    def sent_shape(self) -> tuple[int, ...]:
        """The global shape after crop, stride and keep_components."""
        crop = self.crop or tuple((0, length) for length in self.grid_shape)
        stride = self.stride or (1,) * len(self.grid_shape)
        grid = tuple(
            math.ceil((stop - start) / step)
            for (start, stop), step in zip(crop, stride, strict=True)
        )
        if self.components == 1:
            return grid
        return (*grid, len(self.keep_components or range(self.components)))

    @property
    def sent_bytes(self) -> int:
        """Bytes of one step of the field as sent, all ranks together."""
        return math.prod(self.sent_shape) * (4 if self.dtype == "float32" else 8)


class Stream(Table):
    segment_steps: Count = 1
    window_bytes: Count = 67_108_864
    shards_per_simulation: Count = 4


class Reservoir(Table):
    """Capacity, threshold and band count samples of all ranks together."""

    policy: Literal["reservoir", "fifo", "firo"] = "reservoir"
    capacity: Count = 4000
    threshold: Count = 0  # 0 becomes a tenth of the capacity, at least one batch of every rank
    draws_per_sample: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = None
    band: Count = 0  # 0 becomes 2 x ranks x batch_size


class Offline(Table):
    """mode = "offline": without `dataset` the campaign produces its own first.

    replay: the folder of an online run whose batches are trained on, see `penstock replay`.
    """

    dataset: str | None = None  # a data.h5 that has the campaign's simulations
    loader_workers: CountOrNone | None = None  # of PyTorch's DataLoader; None: by the size
    replay: str | None = None


class Training(Table):
    """`normalisation`: the folder of a model whose constants are taken, instead of new ones."""

    surrogate: NameOrReference = "mlp"
    options: dict[str, Any] = {}
    ranks: Count = 1
    batch_size: Count = 10
    window: Count = 1
    optimizer: Literal["adam", "adamw", "sgd"] | Reference = "adam"
    learning_rate: Seconds = 1e-3
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    schedule: Literal["constant", "cosine", "step"] | Reference = "constant"
    loss: NameOrReference = "mse"
    normalisation: str | None = None
    training_step: Reference | None = None
    dtype: Literal["float32", "float64"] = "float32"
    device: Annotated[str, Field(pattern=mistakes.DEVICE)] = "auto"
    threads: Count = 1
    snapshot_batches: Count = 200

    @property
    def global_batch(self) -> int:
        """Samples of one batch, all ranks together."""
        return self.ranks * self.batch_size


class Stop(Table):
    """Nothing set: training ends when production is over and everything was drawn.

    seconds: of the whole campaign, from its start; the coordinator watches them.
    """

    batches: Count | None = None
    seconds: Seconds | None = None
    target_error: Seconds | None = None


class Validation(Table):
    """test, opponents: whether the end of the run looks at the test simulations, and fits the
    opponents; a comparison does both itself."""

    every_batches: Count = 500
    test: bool = True
    opponents: bool = True


class Checkpoint(Table):
    every_s: Seconds = 60.0
    keep: Count = 3


class Liveness(Table):
    beat_s: Seconds = 1.0
    silence_s: Seconds = 15.0
    start_deadline_s: Seconds = 120.0
    coordinator_patience_s: Seconds = 120.0


class Audit(Table):
    """What `penstock audit` is to find, besides the ledgers.

    draws: every rank logs what it trained on, 24 bytes a sample. checksums: a journal of all
    admissions with a CRC-32 of each segment's fields, and one of each sample's in the log.
    """

    draws: bool = True
    checksums: bool = False


class Admission(Table):
    """What a step must fulfil beyond finite numbers and the ranges of its fields.

    check: `module:name`, called in the receiver as name(fields, t, parameters) with every whole
    step; it gives None, or a sentence that says why the simulation is refused. most_refused: the
    campaign ends when more than this share of the training simulations was refused.
    """

    check: Reference | None = None
    most_refused: Fraction | None = None


class Security(Table):
    """mode: who may connect to coordinator and receivers. "curve": clients with the run's key, and
    everything is encrypted, which costs half of the throughput or more. "trusted-network": whoever
    reaches them. "auto": as "curve" if they can be reached from other machines.
    """

    mode: SecurityMode = "auto"


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
        return _refuse(self, contradictions(self))

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
        return self.stream.segment_steps - self.training.window + 1

    @property
    def samples_per_simulation(self) -> int:
        window, length = self.training.window, self.stream.segment_steps
        full, rest = divmod(self.steps_sent, length)
        return full * self.samples_per_segment + max(0, rest - window + 1)

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
        Path(path).write_text(self.to_toml(), encoding="utf-8")


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


FILES = (("design", "file"), ("offline", "dataset"), ("training", "normalisation"))


def _place_files(data: dict[str, Any], folder: Path) -> None:
    for table, key in FILES:
        given = data.get(table)
        if isinstance(given, dict) and isinstance(given.get(key), str):
            given[key] = str(folder / given[key])


def _refuse(model: AnyTable, conflicts: Iterable[Conflict]) -> AnyTable:
    """The model if nothing speaks against it; else an error that `mistakes` puts into words."""
    if found := list(conflicts):
        text = " ".join(conflict.sentence for conflict in found)
        raise PydanticCustomError("conflict", "{text}", {"text": text, "conflicts": found})
    return model
