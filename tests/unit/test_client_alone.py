"""A solver without a server: what it sends is checked, learned and dropped."""

from __future__ import annotations

import numpy as np
import pytest

import penstock
from penstock.errors import LayoutError

U = np.zeros((8, 6))


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PENSTOCK_COORDINATOR", raising=False)


def test_one_simulation_with_the_given_parameters_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with penstock.connect(parameters={"nu": 0.1}) as link:
        for sim in link.simulations():
            assert (sim.parameters, sim.role, sim.seed, sim.attempt) == ({"nu": 0.1}, "train", 0, 1)
            for step in range(3):
                sim.send(0.1 * step, u=U)
            assert not sim.cancelled
        assert link.simulation() is None
    assert "3 steps of u (8, 6) were checked and dropped" in capsys.readouterr().err


def test_input_fields_are_learned_beside_the_fields_of_steps() -> None:
    with penstock.connect() as link:
        sim = link.simulation()
        assert sim is not None
        sim.inputs(k=np.ones(3))
        sim.send(0.0, u=U, drag=1.0)
        assert {s.name: (s.shape, s.role) for s in link.specs.values()} == {
            "k": ((3,), "input"),
            "u": ((8, 6), "state"),
            "drag": ((), "state"),
        }


def test_a_field_with_a_layout_becomes_what_it_is_sent_as() -> None:
    with penstock.connect() as link:
        link.layout("u", global_shape=(8, 6), owned=(slice(None), slice(None)))
        link.layout("k", global_shape=(3,), owned=np.arange(3))
        sim = link.simulation()
        assert sim is not None
        sim.inputs(k=np.ones(3))
        sim.send(0.0, u=U)
        assert {s.name: s.role for s in link.specs.values()} == {"u": "state", "k": "input"}


def test_axes_of_length_one_do_not_matter() -> None:
    with penstock.connect() as link:
        sim = link.simulation()
        assert sim is not None
        sim.send(0.0, u=U, drag=1.0)
        sim.send(0.1, u=U.reshape(8, 1, 6, 1), drag=np.array([2.0]))
        with pytest.raises(
            LayoutError, match=r"the shape \(6, 8\); this rank's part has the shape"
        ):
            sim.send(0.2, u=U.T, drag=3.0)


def test_a_step_may_be_computed_in_an_array_of_the_simulation() -> None:
    with penstock.connect() as link:
        sim = link.simulation()
        assert sim is not None
        sim.send(0.0, u=sim.empty("u", 7))  # the first step says which fields there are
        before = np.zeros(7)
        for step in range(1, 5):
            u = sim.empty("u", (7, 1))
            assert u.dtype == float
            u[:, 0] = before + 1
            sim.send(float(step), u=u)
            before = u[:, 0]
        assert (before == 4.0).all()
        with pytest.raises(LayoutError, match=r"asked for with the shape \(8,\); this rank's part"):
            sim.empty("u", 8)
        with pytest.raises(LayoutError, match="'v' is not declared"):
            sim.empty("v", 7)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"u": U, "v": U}, "'v' did not come the first time"),
        ({"u": U[:4]}, r"came with the shape \(4, 6\)"),
        ({"u": U.astype(complex)}, "real numbers are expected"),
        ({}, "lacks the field 'u'"),
        ({"u": U, "k": np.ones(3)}, "'k' is not declared"),
    ],
)
def test_a_later_step_has_to_be_like_the_first(fields: dict[str, np.ndarray], words: str) -> None:
    with penstock.connect() as link:
        sim = link.simulation()
        assert sim is not None
        sim.inputs(k=np.ones(3))
        sim.send(0.0, u=U)
        with pytest.raises(LayoutError, match=words):
            sim.send(0.1, **fields)


def test_input_fields_come_before_the_first_step() -> None:
    with penstock.connect() as link:
        sim = link.simulation()
        assert sim is not None
        sim.send(0.0, u=U)
        with pytest.raises(LayoutError, match="before the first step"):
            sim.inputs(k=np.ones(3))


def test_a_coordinator_that_does_not_answer_is_a_lost_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("penstock.source.PATIENCE_S", 0.05)
    monkeypatch.setenv("PENSTOCK_COORDINATOR", "tcp://127.0.0.1:9")
    with pytest.raises(penstock.ConnectionLost, match="did not answer 'hello'"):
        penstock.connect()
