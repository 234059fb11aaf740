"""What the command line says when something fails: a sentence and an exit code; for `commands`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.text import Text

from penstock_server.config import CampaignError

FAILED, BAD_CAMPAIGN, INTERRUPTED = 1, 2, 130
# Errors whose text is for the user; by name, because not every command imports their modules.
FOR_THE_USER = (
    "penstock_server.interpreters:SolverError",
    "penstock_server.run_folder:RunFolderError",
    "penstock_server.try_solver:TryError",
    "penstock_server.design:DesignError",
    "penstock_server.physics:PhysicsError",
    "penstock_server.supervisor:CampaignFailed",
    "penstock_server.predict:PredictError",
    "penstock_server.rerun:RerunError",
    "penstock_server.replay:ReplayError",
    "penstock_server.report.files:ReportError",
    "penstock_server.compare.errors:CompareError",
    "penstock_server.dataset:DataSetError",
    "penstock_server.opponents:OpponentsError",
)


@contextmanager
def told() -> Iterator[None]:
    """Errors that are the user's become sentences and an exit code; all others stay tracebacks."""
    try:
        yield
    except CampaignError as error:
        for problem in error.problems:
            say(problem)
        raise typer.Exit(BAD_CAMPAIGN) from None
    except KeyboardInterrupt:
        say("Stopped with Ctrl-C; nothing was left running.")
        raise typer.Exit(INTERRUPTED) from None
    except (RuntimeError, ValueError) as error:
        if not _for_the_user(error):
            raise
        say(str(error))
        if detail := str(getattr(error, "detail", "")).strip():
            Console(stderr=True).print(Text(detail), soft_wrap=True)
        raise typer.Exit(FAILED) from None


def _for_the_user(error: Exception) -> bool:
    """Whether it is one of FOR_THE_USER; whoever raised it has imported its module."""
    for reference in FOR_THE_USER:
        module, _, name = reference.partition(":")
        if module in sys.modules and isinstance(error, getattr(sys.modules[module], name)):
            return True
    return False


def say(text: str) -> None:
    Console(stderr=True).print(Text(f"penstock: {text}", "red"), soft_wrap=True)
