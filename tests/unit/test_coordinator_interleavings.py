"""Random interleavings of everything that can happen never lose or duplicate a simulation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from coordinator_desk import Desk, settings
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from penstock_server.coordinator.production import OPEN
from penstock_server.coordinator.records import SETTLED_STATES

AGENTS, SHARDS, TRAIN, HELD_OUT = 3, 2, 5, 2


@dataclass
class Player:
    """An agent with its worker, as they really are, whatever the coordinator thinks."""

    agent: str
    life: int = 0
    worker: str = ""
    state: str = "idle"  # idle, running, exited
    greeted: bool = False
    sequence: int = 0
    previous: dict[str, Any] | None = None
    assignment: dict[str, Any] | None = None
    exit_code: int = 0


@dataclass
class World:
    """All processes around the coordinator, and a network that may lose replies."""

    desk: Desk
    players: list[Player]
    delivered: dict[str, list[list[int]]] = field(default_factory=dict)  # not yet acknowledged
    sent: set[tuple[int, str]] = field(default_factory=set)  # simulation, shard: all is there
    settled: dict[int, str] = field(default_factory=dict)
    guilty: int = 0  # what a solver did wrong

    def beat(self, player: Player, lost: bool = False) -> None:
        reply = self.desk.beat(
            player.agent, player.state, worker=player.worker or "none",
            incarnation=str(player.life), exit_code=player.exit_code,
        )  # fmt: skip
        if lost:
            return
        if reply["order"] == "start" and player.state != "running":
            self.become(player, reply["worker"])
        elif reply["order"] == "end" and player.state == "running":
            player.state, player.exit_code = "exited", -15

    def become(self, player: Player, worker: str) -> None:
        player.worker, player.state, player.exit_code = worker, "running", 0
        player.greeted, player.sequence = False, 0
        player.previous = player.assignment = None

    def work(self, player: Player, lost: bool = False) -> None:
        """One step of a worker: hello, then next, then the whole simulation, then next."""
        if player.state != "running":
            return
        if not player.greeted:
            reply = self.desk.say("hello", worker=player.worker, agent=player.agent)
            player.greeted = reply["kind"] == "welcome" and not lost
            return
        if player.assignment is not None:
            self.finish(player)
            return
        reply = self.desk.say(
            "next", worker=player.worker, sequence=player.sequence + 1, previous=player.previous
        )
        assert reply["kind"] in ("assignment", "wait", "over"), reply
        if lost or reply["kind"] == "wait":
            return
        player.sequence += 1
        player.previous = None
        player.assignment = reply if reply["kind"] == "assignment" else None

    def finish(self, player: Player) -> None:
        given = player.assignment
        assert given is not None
        for shard in given["shards"]:
            self.delivered.setdefault(shard, []).append([given["simulation"], given["lease"], 3])
            self.sent.add((given["simulation"], shard))
        player.previous = {
            "simulation": given["simulation"], "lease": given["lease"],
            "outcome": "ended", "steps": 6,
        }  # fmt: skip
        player.assignment = None

    def fail(self, player: Player) -> None:
        if player.state == "running" and player.assignment is not None:
            given, player.assignment = player.assignment, None
            self.guilty += 1
            player.previous = {
                "simulation": given["simulation"], "lease": given["lease"], "outcome": "failed",
            }  # fmt: skip

    def kill_worker(self, player: Player, code: int) -> None:
        if player.state == "running":
            player.state, player.exit_code, player.assignment = "exited", code, None
            self.guilty += code != -9

    def kill_agent(self, player: Player) -> None:
        player.life += 1
        player.worker, player.state, player.assignment = "", "idle", None

    def report(self, shard: str, lost: bool = False) -> None:
        self.desk.report(shard, delivered=self.delivered.get(shard, []))
        if not lost:
            self.delivered[shard] = []

    def check(self) -> None:
        production = self.desk.state._books.production
        assert len(production.simulations) == TRAIN + HELD_OUT
        open_leases: dict[int, int] = {}
        for lease in production.leases.values():
            if lease.state in OPEN:
                assert lease.simulation not in open_leases, "two workers have the same simulation"
                open_leases[lease.simulation] = lease.lease
        for number, simulation in production.simulations.items():
            assert (number in open_leases) == (simulation.state in ("running", "ended"))
            if number in open_leases:
                assert open_leases[number] == simulation.lease
            if simulation.state == "completed":
                assert all((number, shard) in self.sent for shard in simulation.shards)
            if number in self.settled:
                assert simulation.state == self.settled[number], "what is settled stays settled"
            if simulation.state in SETTLED_STATES:
                self.settled[number] = simulation.state
        faults = sum(simulation.faults for simulation in production.simulations.values())
        assert faults <= self.guilty, "nobody is blamed for what others did"
        kept = {row.id: row for row in self.desk.saved().simulations}
        assert kept == production.simulations, "the database and the memory differ"


def new_world() -> World:
    desk = Desk(
        settings(
            train=TRAIN, validation=HELD_OUT, shards=SHARDS, shards_per_simulation=2,
            max_attempts=10_000, max_losses=10_000, failed_at_first=10_000, dead_starts=10_000,
            step_deadline_s=1e9,
        )
    )  # fmt: skip
    desk.report_all()
    world = World(desk, [Player(f"a{number}") for number in range(AGENTS)])
    # One hello, so that workers that die at once are no reason to end the campaign.
    world.beat(world.players[0])
    world.work(world.players[0])
    return world


ACTIONS = (
    "beat", "lost beat", "work", "lost work", "work", "fail", "kill -9", "crash", "exit",
    "kill agent", "report", "lost report", "report", "restart", "silence", "time",
)  # fmt: skip


def act(world: World, action: str, number: int) -> None:
    player = world.players[number % AGENTS]
    shards = world.desk.settings.shards
    shard = shards[number % len(shards)]
    if action in ("beat", "lost beat"):
        world.beat(player, lost=action.startswith("lost"))
    elif action in ("work", "lost work"):
        world.work(player, lost=action.startswith("lost"))
    elif action in ("report", "lost report"):
        world.report(shard, lost=action.startswith("lost"))
    elif action == "fail":
        world.fail(player)
    elif action in ("kill -9", "crash", "exit"):
        world.kill_worker(player, {"kill -9": -9, "crash": 1, "exit": 0}[action])
    elif action == "kill agent":
        world.kill_agent(player)
    elif action == "restart":
        world.desk.restart()
    elif action == "silence":
        world.desk.wait(16.0, reporting=False)
    else:
        world.desk.wait(3.0, reporting=False)


@hypothesis_settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 5)), max_size=80))
def test_no_interleaving_loses_or_duplicates_a_simulation(
    steps: list[tuple[str, int]],
) -> None:
    world = new_world()
    for action, number in steps:
        act(world, action, number)
        world.check()
    for _ in range(400):  # from now on nothing fails, and all must come to its end
        for number in range(6):
            for action in ("beat", "work", "report"):
                act(world, action, number)
        world.desk.wait(1.0, reporting=False)
        if world.desk.state._books.standing.state != "running":
            break
    world.check()
    counts = world.desk.status()["simulations"]
    assert counts["completed"] == counts["requested"] == TRAIN + HELD_OUT
    assert world.desk.status()["state"] == "over"
