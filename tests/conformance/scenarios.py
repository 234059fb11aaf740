"""What the conformance kit plays: for each check the campaign, the faults and what is to come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from contract import CONTRACT, Contract

CAMPAIGN = 11259375  # of the golden frames
LARGE = (1 << 62) + 12345  # no double holds it


@dataclass(frozen=True)
class Faults:
    """What goes wrong on a shard (counted in numbered messages of each part) or at the desk."""

    ack_every: int = 1  # only each n-th message is acknowledged unasked
    ack_copies: int = 1
    silent_from: int | None = None  # from this message on only PROBE is answered
    lose: frozenset[int] = frozenset()  # these messages never arrive
    forget: frozenset[int] = frozenset()  # after these it loses connections, and what is unacked
    reopen: int | None = None  # after this its socket goes, and comes back at the same address
    old_resync: bool = False  # a RESYNC comes after a new HELLO, before its ACK
    old_ack: bool = False  # so does an ACK of the old greeting, of everything
    lose_again: int | None = None  # on the second greeting the message of this number is lost
    credit: int = 1000  # segments granted; with hold_s beyond those that are complete
    hold_s: float = 0.0  # when credit is used up it is withheld for so long, with HOLD
    refuse: Mapping[int, tuple[int, str]] = field(default_factory=dict)  # lease -> step, reason
    refuse_parts: frozenset[int] | None = None  # None: all of them hear it
    deaf: int = 0  # so many copies of each request get no answer
    wrong_answers: bool = False  # answers to other requests come before the right one
    waits: int = 0  # so many times `wait` before an assignment
    desk_reopens: bool = False
    refuse_hello: str = ""
    borrows: bool = True  # the shard reads memory that it is offered


@dataclass(frozen=True)
class Scenario:
    """One check. It passes when the program does what README.md and WIRE.md say."""

    name: str
    says: str
    assignments: list[dict[str, Any]]
    fields: dict[str, dict[str, Any]]
    faults: Faults = Faults()
    stream: Mapping[str, Any] = field(default_factory=dict)
    shards: int = 1
    campaign: int = CAMPAIGN
    outcomes: tuple[str, ...] = ()  # expected; "ended" for all
    reason: str = ""  # expected in that of the simulations that did not end well
    exit_code: int = 0
    stderr: str = ""  # expected in what the program prints there
    ranks: tuple[int, ...] = (1, 2, 3)
    least_probes: int = 0
    greetings: int | None = 1  # the last one of every part
    golden: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # name -> shard, frames
    undeclared: bool = False
    alone: bool = False
    offers: str = ""  # what a client may do here: "bunches" or "memory"
    contract: Contract = CONTRACT
    arguments: tuple[str, ...] = ()  # of the program; none: --fields and the fields' letters
    timeout_s: float = 120.0  # far above what it takes: the machine may be busy


def fields(letters: str = "uvw", **changed: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Declarations of the contract's fields, u in float32 and the others in float64."""
    return {
        name: {
            "shape": list(CONTRACT.shapes[name]),
            "dtype": "float32" if name == "u" else "float64",
            "role": "input" if name in CONTRACT.inputs else "state",
            "every": 1, "crop": None, "stride": None, "keep_components": None,
            "later": {"nested": [1, {"what": "a key that this client does not know"}]},
            **changed.get(name, {}),
        }
        for name in letters
    }  # fmt: skip


def simulation(number: int, lease: int | None = None, **more: Any) -> dict[str, Any]:
    """An assignment; its shards are named by the stage."""
    return {
        "simulation": number, "lease": lease or number + 1, "role": "train", "attempt": 1,
        "seed": 1000 * number + 7, "wanted": None,
        "parameters": {"steps": 10.0, "b": 0.5, "a": 2.0 + number}, **more,
    }  # fmt: skip


def short(number: int, steps: int, **more: Any) -> dict[str, Any]:
    """An assignment of so many steps; further parameters by name."""
    given = {"a": 2.0 + number, "steps": float(steps), "b": -0.25, **more}
    return simulation(number, parameters=given)


GOLDEN = simulation(4294967297, 7, role="validation", seed=0, parameters={"a": 350.5, "b": -1e-3})
FAULTS_TEXT = 'lease 1 is no longer the newest of its simulation \u2013 "7"\n'

SCENARIOS = [
    Scenario(
        "alone", "without a server the program runs and drops what it sends",
        [], fields(), alone=True,
    ),
    Scenario(
        "plain", "three simulations of different length on two shards, two fields and an input",
        [short(0, 10), short(1, 7), short(2, 1)], fields(), shards=2,
        stream={"segment_steps": 4},
    ),
    Scenario(
        "large-fields", "fields of 128 KiB with small windows",
        [short(0, 12)], fields("ux"), stream={"window_bytes": 300_000},
        faults=Faults(ack_every=3),
    ),
    Scenario(
        "numbers", "campaign, simulation and seed are integers that no double holds",
        [simulation((1 << 53) + 1, (1 << 32) - 1, seed=(1 << 53) - 27)], fields(), campaign=LARGE,
    ),
    Scenario(
        "order-of-parameters", "OPEN has the parameters in the assignment's order",
        [simulation(0, parameters={"z": 1e-300, "b": 0.5, "A": -7.25e5, "a": 3.0, "steps": 2.0})],
        fields(),
    ),
    Scenario(
        "reduced", "every, crop, stride and float64 fields in float32",
        [short(0, 10)],
        fields("uvwx", u={"every": 3, "crop": [[1, 4], [1, 6]], "stride": [2, 3]},
               w={"dtype": "float32", "crop": [[1, 5]]}, v={"stride": [2]},
               x={"crop": [[3, 60], [10, 20]], "stride": [9, 3], "dtype": "float32"}),
    ),
    Scenario(
        "components", "keep_components takes the last axis in the order that is given",
        [short(0, 3)], fields("uw", u={"keep_components": [4, 0, 3]}),
    ),
    Scenario(
        "steady", "a step without a time", [short(0, 1, timed=0.0)], fields(),
    ),
    Scenario(
        "wanted", "only the wanted segments are sent, and END has all steps",
        [simulation(3, wanted=[[1, 1], [3, 9]], attempt=2), simulation(4, wanted=[])],
        fields(), shards=2, stream={"segment_steps": 2},
    ),
    Scenario(
        "slow-acks", "acknowledgements come late, in lumps, and more than once",
        [short(0, 40), short(1, 20)], fields(), faults=Faults(ack_every=7, ack_copies=3),
        stream={"window_bytes": 2000},
    ),
    Scenario(
        "bunches", "steps that share a message keep within bunch_bytes, credit and window",
        [short(0, 60), short(1, 30)], fields("uv"), shards=2, greetings=None,
        stream={"segment_steps": 4, "bunch_bytes": 1000, "window_bytes": 4000},
        faults=Faults(ack_every=5, forget=frozenset({9, 20})), offers="bunches",
    ),
    Scenario(
        "lent", "values that the shard reads where they are stay until they are acknowledged",
        [short(0, 40), short(1, 20)], fields("ux"), shards=2,
        stream={"shared_memory": True, "window_bytes": 1_000_000},
        faults=Faults(ack_every=4), offers="memory",
    ),
    Scenario(
        "lent-bunches", "so do those of steps that share a message, and after a RESYNC",
        [short(0, 60)], fields("ux"), greetings=None,
        stream={"shared_memory": True, "bunch_bytes": 600_000, "window_bytes": 20_000_000},
        faults=Faults(ack_every=3, forget=frozenset({6, 11})), offers="memory",
    ),
    Scenario(
        "not-borrowed", "a shard that does not take the offer gets the values",
        [short(0, 20)], fields("ux"), stream={"shared_memory": True},
        faults=Faults(borrows=False),
    ),
    Scenario(
        "lost-acks", "no acknowledgement comes unasked: the program asks",
        [short(0, 10)], fields(), faults=Faults(silent_from=4), least_probes=1,
    ),
    Scenario(
        "lost-messages", "messages are lost on the way, and sent again after RESYNC",
        [short(0, 30), short(1, 8)], fields(), faults=Faults(lose=frozenset({5, 13, 14})),
        greetings=None,
    ),
    Scenario(
        "lost-first", "the announcements are lost on the way",
        [short(0, 5)], fields(), faults=Faults(lose=frozenset({0, 1})), greetings=None,
    ),
    Scenario(
        "forgotten", "the shard forgets its connections and what it did not acknowledge",
        [short(0, 30), short(1, 8)], fields(),
        faults=Faults(forget=frozenset({9, 20, 36}), ack_every=3), greetings=None,
    ),
    Scenario(
        "forgotten-at-the-end", "it forgets after END, and is found by the question",
        [short(0, 5)], fields(),
        faults=Faults(forget=frozenset({8}), silent_from=7), greetings=2, least_probes=1,
    ),
    Scenario(
        "restarted", "the shard's socket goes and comes back at the same address",
        [short(0, 30), short(1, 8)], fields(), faults=Faults(reopen=9, ack_every=4),
        greetings=None,
    ),
    Scenario(
        "old-resync", "a RESYNC between HELLO and its ACK is about older messages",
        [short(0, 20)], fields(),
        faults=Faults(forget=frozenset({9}), old_resync=True, ack_every=3), greetings=2,
    ),
    Scenario(
        "old-ack", "an ACK of an older greeting acknowledges nothing",
        [short(0, 20)], fields(),
        faults=Faults(forget=frozenset({9}), old_ack=True, ack_every=3, lose_again=4),
        greetings=3,
    ),
    Scenario(
        "window", "without acknowledgements no more than the window's bytes are sent",
        [short(0, 20)], fields(), stream={"window_bytes": 2000},
        faults=Faults(silent_from=3), least_probes=1,
    ),
    Scenario(
        "credit", "nothing is sent without credit; a full shard's HOLD is waited for",
        [short(0, 12)], fields(), shards=2, stream={"segment_steps": 2},
        faults=Faults(credit=1, hold_s=1.3), least_probes=1,
    ),
    Scenario(
        "refused", "a refused simulation gets FAIL, and the next one goes on",
        [short(0, 10), short(1, 5)], fields(), shards=2,
        faults=Faults(refuse={1: (3, "Field 'u' has 1 value that is not finite at step 3.")}),
        outcomes=("refused", "ended"), reason="not finite",
    ),
    Scenario(
        "superseded", "a superseded lease is left, and the new one of the same simulation goes on",
        [short(0, 10), simulation(0, 9, attempt=2)], fields(),
        faults=Faults(refuse={1: (4, FAULTS_TEXT)}), outcomes=("refused", "ended"),
        reason="no longer the newest",
    ),
    Scenario(
        "cancelled", "what one rank hears ends the simulation on all",
        [short(0, 400, pause_s=0.01), short(1, 5)], fields(),
        faults=Faults(refuse={1: (3, "another rank's values")}, refuse_parts=frozenset({1})),
        outcomes=("refused", "ended"), ranks=(2, 3),
    ),
    Scenario(
        "failed", "a solver that gives up ends its simulation alone, and the reason is told",
        [short(0, 10, fail_at=4.0), short(1, 5)], fields(),
        outcomes=("failed", "ended"), reason="asked to fail at step 4",
    ),
    Scenario(
        "deaf-coordinator", "requests are repeated with their number until they are answered",
        [short(0, 3)], fields(), faults=Faults(deaf=1),
    ),
    Scenario(
        "wrong-answers", "answers to other requests, and frames that are no JSON, are dropped",
        [short(0, 3)], fields(), faults=Faults(wrong_answers=True),
    ),
    Scenario(
        "waiting", "wait is asked again as a new request",
        [short(0, 3)], fields(), faults=Faults(waits=3),
    ),
    Scenario(
        "restarted-coordinator", "a coordinator that comes back at its address is found again",
        [short(0, 3), short(1, 3)], fields(), faults=Faults(desk_reopens=True, deaf=1),
    ),
    Scenario(
        "refused-worker", "a refused request ends the program with that text",
        [], fields(), faults=Faults(refuse_hello="Worker is not of this campaign."),
        exit_code=3, stderr="Worker is not of this campaign.",
    ),
    Scenario(
        "wrong-shape", "a layout of another shape than the campaign's ends the program",
        [short(0, 3)], fields("uvw", u={"shape": [4, 7]}), exit_code=3, stderr="(4, 7)",
    ),
    Scenario(
        "layout-between", "a layout before the first step of a simulation holds from then on",
        [short(0, 3), short(1, 3, lay_at=0.0), short(2, 3)], fields("u"), shards=2,
        faults=Faults(forget=frozenset({9})), greetings=None,
    ),
    Scenario(
        "layout-during", "a layout in the middle of a simulation ends the program",
        [short(0, 6, lay_at=3.0)], fields(), exit_code=3, stderr="during simulation 0",
    ),
    Scenario(
        "undeclared", "without a campaign file the program declares its fields",
        [short(0, 3), short(1, 2)], fields(), undeclared=True,
    ),
    Scenario(
        "golden-announcements", "HELLO, PLAN, OPEN, INPUT and BYE are the golden frames",
        [{**GOLDEN, "wanted": []}], fields("uv"), shards=3, ranks=(2,),
        golden={"hello": (1, 1), "plan": (1, 3), "open": (1, 2), "input": (1, 2), "bye": (1, 1)},
    ),
    Scenario(
        "golden-steps", "PART, END and PROBE are the golden frames",
        [GOLDEN], fields("uv"), ranks=(2,), faults=Faults(silent_from=45),
        golden={"part": (0, 1), "end": (0, 1), "probe": (0, 1)},
    ),
    Scenario(
        "golden-fail", "FAIL is the golden frame",
        [{**GOLDEN, "parameters": {"steps": 50.0, "fail_at": 42.0}}], fields("uv"), ranks=(2,),
        outcomes=("failed",), reason="asked to fail at step 42", golden={"fail": (0, 1)},
    ),
]  # fmt: skip
