"""The process that hands out simulations and keeps the books; the supervisor starts it."""

from penstock_server.coordinator.plan import HELD_OUT, planned, seed_of
from penstock_server.coordinator.settings import Planned, Rules, Settings
from penstock_server.coordinator.state import Outcome, State
from penstock_server.coordinator.store import Store

__all__ = [
    "HELD_OUT", "Outcome", "Planned", "Rules", "Settings", "State", "Store", "planned", "seed_of",
]  # fmt: skip
