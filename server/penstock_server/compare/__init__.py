"""Online against offline training on the same simulations, as `penstock compare` does it."""

from penstock_server.compare.arms import Arm, Recipe, Setting, parse_arms
from penstock_server.compare.errors import CompareError
from penstock_server.compare.result import gather, summarise
from penstock_server.compare.runner import ProcessRunner
from penstock_server.compare.scores import StoredScores
from penstock_server.compare.study import Comparison, Study

__all__ = [
    "Arm",
    "CompareError",
    "Comparison",
    "ProcessRunner",
    "Recipe",
    "Setting",
    "StoredScores",
    "Study",
    "gather",
    "parse_arms",
    "summarise",
]
