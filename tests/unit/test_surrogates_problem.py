"""Problem and Batch: what they accept, and what they answer to what they cannot."""

from __future__ import annotations

import json

import pytest
import torch

from penstock_surrogates import Batch, Field, Parameter, Problem


def a_problem() -> Problem:
    return Problem(
        parameters=(Parameter("T0", 100, 500), Parameter("k", 1e-3, 1.0, "log-uniform")),
        fields={"temperature": Field((4, 3), unit="K"), "flow": Field((4, 2), components=2)},
        inputs={"permeability": Field((5,), role="input")},
        t_range=(0, 2),
        window=3,
    )


def test_a_problem_survives_json() -> None:
    problem = a_problem()
    again = Problem.from_dict(json.loads(json.dumps(problem.to_dict())))
    assert again == problem
    assert again.fields["temperature"].shape == (4, 3)
    assert (again.size, again.input_size) == (12 + 8, 5)
    assert again.parameter_names == ("T0", "k")


def test_wrong_problems_are_answered_in_sentences() -> None:
    with pytest.raises(ValueError, match="distribution 'normal'; choose one of uniform"):
        Parameter("T0", 0, 1, "normal")
    with pytest.raises(ValueError, match="low <= high, but they are 5 and 1"):
        Parameter("T0", 5, 1)
    with pytest.raises(ValueError, match="needs low > 0, but low is 0"):
        Parameter("k", 0, 1, "log-uniform")
    with pytest.raises(ValueError, match="role 'output' is unknown"):
        Field((3,), role="output")
    with pytest.raises(ValueError, match="3 components has them as its trailing axis"):
        Field((3, 4), components=3)
    with pytest.raises(ValueError, match="at least one cell"):
        Field((3, 0))
    spec = Field((3,))
    with pytest.raises(ValueError, match="at least one field"):
        Problem((), {})
    with pytest.raises(ValueError, match="predicted or given, not both"):
        Problem((), {"u": spec}, {"u": spec})
    with pytest.raises(ValueError, match="that is the time"):
        Problem((), {"t": spec})
    with pytest.raises(ValueError, match="different names"):
        Problem((Parameter("a", 0, 1), Parameter("a", 0, 1)), {"u": spec})
    with pytest.raises(ValueError, match="window of at least 1 step"):
        Problem((), {"u": spec}, window=0)


def test_a_batch_knows_its_shapes() -> None:
    simulation, step = torch.zeros(4, dtype=torch.int64), torch.zeros(4, 2, dtype=torch.int64)
    fields = {"u": torch.zeros(4, 2, 5)}
    batch = Batch(torch.zeros(4, 3), torch.zeros(4, 2), fields, simulation, step)
    assert len(batch) == 4
    assert len(batch.to("cpu")) == 4
    with pytest.raises(ValueError, match=r"field 'u' with leading axes \(4, 2\)"):
        Batch(torch.zeros(4, 3), torch.zeros(4, 2), {"u": torch.zeros(4, 5)}, simulation, step)
    with pytest.raises(ValueError, match=r"needs step of shape \(4, 2\)"):
        Batch(torch.zeros(4, 3), torch.zeros(4, 2), fields, simulation, simulation)
