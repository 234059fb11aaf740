"""What processes ask the coordinator, as checked values; made from JSON at its door."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

Name = Annotated[str, Field(min_length=1, max_length=200)]
Count = Annotated[int, Field(ge=0)]
Progressed = tuple[int, int, int] | tuple[int, int, int, bool]  # simulation, lease, steps, held


class NotAccepted(ValueError):
    """The request is understood and makes no sense; its text is the answer. Nothing was changed."""


class _Request(BaseModel):
    """Unknown keys are ignored, so that newer clients can talk to an older coordinator."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _OpenRequest(BaseModel):
    """Its unknown keys are kept: they are for the display."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Hello(_Request):
    kind: Literal["hello"] = "hello"
    worker: Name
    agent: str | None = None
    pid: int = 0
    host: str = ""
    parts: int = 1
    client: str = ""


class Previous(_Request):
    """How the worker's last simulation ended; refused: by a shard, which says why itself.

    time_s: of its first part, if the client tells: "seconds" from the assignment to the end, and of
    these "credit" and "window", waited in `send` for the shard's credit and for its own window.
    """

    simulation: int
    lease: int
    outcome: Literal["ended", "failed", "refused"]
    steps: Count = 0
    reason: str = ""
    time_s: dict[str, float] = {}


class Next(_Request):
    """leaving: the worker wants no further simulation."""

    kind: Literal["next"] = "next"
    worker: Name
    sequence: Count
    previous: Previous | None = None
    leaving: bool = False


class Fail(_Request):
    """A worker's last word when an exception ends it."""

    kind: Literal["fail"] = "fail"
    worker: Name
    simulation: int
    lease: int
    reason: str = ""


class Book(_Request):
    kind: Literal["book"] = "book"


class Beat(_Request):
    kind: Literal["beat"] = "beat"
    agent: Name
    state: Literal["idle", "running", "stopped", "exited", "left"]
    incarnation: str = ""
    worker: str = ""
    pid: int = 0
    exit_code: int | None = None
    stderr_tail: str = ""
    log: str = ""
    stopped_s: float = 0.0


class Refusal(_Request):
    """A lease that a shard refused; kind: a `penstock_server.refusals.RefusalKind`."""

    simulation: int
    lease: int
    kind: str
    reason: str = ""
    field: str | None = None
    step: int | None = None


class Report(_OpenRequest):
    """A receiver's report; what it lists may be listed again."""

    kind: Literal["report"] = "report"
    shard: Name
    address: Name
    epoch: Count = 0
    pid: int = 0
    counters: dict[str, Any] = {}
    seconds: dict[str, float] = {}  # of its loop since it was started, by what they went to
    delivered: list[tuple[int, int, Count]] = []  # simulation, lease, segments of this shard
    refused: list[Refusal] = []
    progress: list[Progressed] = []
    blocked: bool = False


class Progress(_OpenRequest):
    kind: Literal["progress"] = "progress"
    state: Literal["waiting", "training", "draining", "done"]
    error: str | None = None


class Validated(_OpenRequest):
    kind: Literal["validated"] = "validated"
    batch: int
    final: bool = False
    metric: str = ""
    value: float | None = None


class Status(_Request):
    """The *_since are serial numbers: entries from there on; without one, the newest few."""

    kind: Literal["status"] = "status"
    faults_since: Count | None = None
    events_since: Count | None = None
    progress_since: Count | None = None
    validated_since: Count | None = None


class Stop(_Request):
    kind: Literal["stop"] = "stop"
    why: str = ""


class Fault(_OpenRequest):
    """A process of the server died or was restarted; noted for the report."""

    kind: Literal["fault"] = "fault"
    process: str = ""


class Tick(_Request):
    """Time has passed; not on the wire."""

    kind: Literal["tick"] = "tick"


Asked = Hello | Next | Fail | Book | Beat | Report | Progress | Validated | Status | Stop | Fault
Event = Asked | Tick
_ADAPTER: TypeAdapter[Asked] = TypeAdapter(Annotated[Asked, Field(discriminator="kind")])


def parse(message: dict[str, Any]) -> Asked:
    """Raises NotAccepted with a sentence that names the key and what was expected."""
    try:
        return _ADAPTER.validate_python(message)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "kind"
        raise NotAccepted(
            f"The request {message.get('kind')!r} is not understood: {key}: {first['msg']}."
        ) from error
