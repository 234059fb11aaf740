"""The tables of a campaign file, each a model that refuses unknown keys; `config` joins them.

Defaults live here and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from penstock_server import mistakes
from penstock_server.contradictions import Conflict, field_conflicts, parameter_conflicts

MOST_BUNCH_BYTES = 4_194_304
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
        return refuse(self, parameter_conflicts(self))

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
        return refuse(self, field_conflicts(self))

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
    def sent_grid(self) -> tuple[int, ...]:
        """The axes of sent_shape without that of the components."""
        return self.sent_shape[:-1] if self.components > 1 else self.sent_shape

    @property
    def sent_bytes(self) -> int:
        """Bytes of one step of the field as sent, all ranks together."""
        return math.prod(self.sent_shape) * (4 if self.dtype == "float32" else 8)


class Stream(Table):
    segment_steps: Count = 1
    window_bytes: Count = 67_108_864
    # Steps in one message; 0: one step each. Receivers take frames of 4 MiB in any case.
    bunch_bytes: Annotated[int, Field(ge=0, le=MOST_BUNCH_BYTES)] = MOST_BUNCH_BYTES
    shared_memory: bool = True  # between a worker and a receiver on one host
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
    """`normalisation`: the folder of a model whose constants are taken, instead of new ones.

    A sample is `window` steps, each `stride` steps after the one before. patch: of every sample
    drawn the network sees one box of this many nodes, which lies anywhere on the fields' grid.
    """

    surrogate: NameOrReference = "mlp"
    options: dict[str, Any] = {}
    ranks: Count = 1
    batch_size: Count = 10
    window: Count = 1
    stride: Count = 1
    patch: tuple[Count, ...] | None = None
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

    @property
    def span(self) -> int:
        """Steps of the stream from the first to the last of a sample."""
        return (self.window - 1) * self.stride + 1


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
    everything is encrypted, which leaves 0.27 to 0.48 of the throughput. "trusted-network": whoever
    reaches them. "auto": as "curve" if they can be reached from other machines.
    """

    mode: SecurityMode = "auto"


def refuse(model: AnyTable, conflicts: Iterable[Conflict]) -> AnyTable:
    """The model if nothing speaks against it; else an error that `mistakes` puts into words."""
    if found := list(conflicts):
        text = " ".join(conflict.sentence for conflict in found)
        raise PydanticCustomError("conflict", "{text}", {"text": text, "conflicts": found})
    return model
