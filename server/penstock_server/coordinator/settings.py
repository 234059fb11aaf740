"""What the coordinator is started with: a JSON file that the supervisor writes and it reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from penstock_server.coordinator.records import ROLES


class Rules(BaseModel):
    """Deadlines in seconds and limits, as in the campaign file's [liveness], [solver] and [stop].

    The ones with a default here are the coordinator's own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    silence_s: float
    start_deadline_s: float
    step_deadline_s: float
    max_attempts: int
    most_refused: float | None = None  # share of the training simulations
    target_error: float | None = None
    seconds: float | None = None
    max_losses: int = 20  # attempts of one simulation that ended without the solver's fault
    failed_at_first: int = 10  # so many given up and none completed: the solver does not work
    dead_starts: int = 20  # workers in a row that ended before their first simulation
    leave_grace_s: float = 10.0  # for a worker to end by itself when production is over
    retry_s: float = 0.5  # in the answer `wait`


class Planned(BaseModel):
    """A simulation as designed; `shards` are the ones that it goes to in all its attempts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: int
    role: str = Field(pattern=f"^({'|'.join(ROLES)})$")
    parameters: dict[str, float]
    seed: int
    shards: list[str] = Field(min_length=1)


class Settings(BaseModel):
    """Everything about one run of a campaign that the coordinator needs.

    run: differs between a run and its resumption, not between restarts of the coordinator.
    settled: after a resumption, for each simulation the ranges of segments (both ends included)
    that the checkpoint holds; what is missing is asked for again. done: simulations that stand in a
    data set, absent: that a given one lacks; neither is asked for. fields, stream: sent to workers
    as they are. repeat_command: may hold {simulation}, {parameters} and {seed}.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str
    database: str
    campaign: int = Field(ge=0, lt=1 << 64)
    name: str
    run: str
    fields: dict[str, Any]
    stream: dict[str, Any]
    shards: list[str] = Field(min_length=1)
    simulations: list[Planned] = Field(min_length=1)
    rules: Rules
    repeat_command: str = ""
    metrics_port: int = 0  # of 127.0.0.1; 0 serves none
    settled: dict[int, list[tuple[int, int]]] = {}
    done: list[int] = []
    absent: list[int] = []
    server_keys: str | None = None  # a file; None: whoever reaches the socket may talk to it

    def save(self, path: Path | str) -> None:
        Path(path).write_text(self.model_dump_json(indent=1), encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str) -> Settings:
        """Raises pydantic's ValidationError, which names the key."""
        return cls.model_validate_json(Path(path).read_text(encoding="utf-8"))
