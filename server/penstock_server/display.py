"""Shows a running campaign: a live panel, or plain lines without a terminal.

`cli` makes a Display and hands its methods to the supervisor; what is shown is made in `panel`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from penstock_server.panel import line, panel
from penstock_server.recent import Recent, Status

PLAIN_EVERY_S = 5.0


class Display:
    """Shows a running campaign; a context manager. Give its two methods to `run_campaign`.

    plain: lines even on a terminal. quiet: nothing until the end.
    """

    def __init__(
        self,
        console: Console,
        *,
        plain: bool = False,
        quiet: bool = False,
        planned_batches: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.recent = Recent(planned_batches)
        self._console, self._quiet, self._clock = console, quiet, clock
        self._due_s = -math.inf
        self._status: Status | None = None
        able = console.is_terminal and not console.is_dumb_terminal
        able = able and console.encoding.lower().startswith("utf")
        self._live: Live | None = None
        if able and not plain and not quiet:
            self._live = Live(Text("Starting .."), console=console, auto_refresh=False)

    def on_status(self, status: Status) -> None:
        """The coordinator's newest status; about twice a second."""
        self._status = status
        self.recent.add(status)
        if self._live is not None:
            self._live.update(panel(status, self.recent), refresh=True)
        elif not self._quiet and self._clock() >= self._due_s:
            self._due_s = self._clock() + PLAIN_EVERY_S
            self._print(line(status, self.recent))

    def on_message(self, text: str) -> None:
        """A sentence about something that happened."""
        self.recent.messages.append(text.partition("\n")[0])
        if self._live is not None:
            shown = panel(self._status, self.recent) if self._status else Text(text)
            self._live.update(shown, refresh=True)
        elif not self._quiet:
            self._print(text)

    def _print(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.start(refresh=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
        elif self._status is not None and not self._quiet:
            self._print(line(self._status, self.recent))
