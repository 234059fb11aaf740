"""A campaign that trains on boxes of its fields, with a network and a solver of the user's own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from whole import Started, check_replay

from penstock_server.audit import audit, read_tables

pytestmark = pytest.mark.timeout(240)

SOLVER = """
import numpy as np
import penstock

nodes = np.linspace(0, 1, 12), np.linspace(0, 1, 16)
y, x = np.meshgrid(*nodes, indexing="ij")
with penstock.connect() as link:
    for sim in link.simulations():
        a = sim.parameters["a"]
        sim.inputs(y=y, x=x)
        for t in np.linspace(0, 1, 20):
            sim.send(t, u=np.sin(3 * x + a * t) + y, q=[a * t])
"""

NETWORK = """
import torch
from torch import nn

class Local(nn.Module):
    '''Each node by itself, from where it is; quantities from parameters and t.'''

    def __init__(self, problem):
        super().__init__()
        self.patch = problem.patch
        self.node = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 1))
        self.scalar = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, parameters, t, inputs):
        if self.training:
            assert inputs["x"].shape[1:] == self.patch == (4, 6)
        own = torch.stack([parameters.expand(-1, t.shape[1]), t], -1)  # (b, k, 2)
        place = torch.stack([inputs["x"], inputs["y"]], -1)[:, None]  # (b, 1, *box, 2)
        place = place.expand(-1, t.shape[1], -1, -1, -1)
        both = torch.cat([place, own[:, :, None, None].expand(*place.shape[:-1], 2)], -1)
        return {"u": self.node(both)[..., 0], "q": self.scalar(own)}
"""

CAMPAIGN = """
name = "patched"
seed = 5
[solver]
command = ["{python}", "SOLVER"]
workers = 2
steps = 20
[design]
simulations = 40
validation = 4
[design.parameters]
a = { low = 0, high = 2 }
[fields.u]
shape = [12, 16]
[fields.q]
shape = [1]
role = "quantity"
[fields.x]
shape = [12, 16]
role = "input"
[fields.y]
shape = [12, 16]
role = "input"
[reservoir]
capacity = 400
threshold = 100
draws_per_sample = 16.0
[training]
surrogate = "local_network:Local"
patch = [4, 6]
window = 1
batch_size = 8
learning_rate = 1e-2
schedule = "cosine"
ranks = 2
[audit]
checksums = true
"""


@pytest.mark.slow
def test_boxes_train_a_network_that_predicts_whole_fields_and_are_replayed_to_the_bit(
    tmp_path: Path, start: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "solver.py").write_text(SOLVER)
    (tmp_path / "local_network.py").write_text(NETWORK)
    known = filter(None, [os.environ.get("PYTHONPATH")])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *known]))
    campaign = tmp_path / "patched.toml"
    campaign.write_text(CAMPAIGN.replace("SOLVER", str(tmp_path / "solver.py")))
    run = start(campaign)
    assert run.finish(120) == 0, run.output
    assert run.summary["samples"]["trained_unique"] == 800
    assert audit(read_tables(run.folder)).findings == []
    validation = json.loads((run.folder / "validation.json").read_text())
    network, constant = (validation["validation"][of]["value"] for of in ("network", "constant"))
    assert network < 0.5 * constant
    model = json.loads((run.folder / "model" / "model.json").read_text())
    assert model["problem"]["patch"] == [4, 6]
    check_replay(run.folder, tmp_path / "replays")
