"""A worker without a data path, for tests: python agent_worker.py MODE; the test plays the shards.

It asks for simulations and says that they ended; MODE "one" takes one and exits, "many" takes all,
"slow" stays in its first one.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from penstock.control import Asker


def main(mode: str) -> None:
    worker = os.environ["PENSTOCK_WORKER"]
    asker = Asker(os.environ["PENSTOCK_COORDINATOR"], f"worker/{worker}", resend_s=0.2)

    def ask(kind: str, **body: Any) -> dict[str, Any]:
        reply = asker.ask(kind, timeout_s=30.0, worker=worker, **body)
        while reply["kind"] == "wait":
            time.sleep(reply["retry_s"])
            reply = asker.ask(kind, timeout_s=30.0, worker=worker, **body)
        return reply

    assert ask("hello", agent=os.environ["PENSTOCK_AGENT"], pid=os.getpid())["kind"] == "welcome"
    previous = None
    for sequence in range(1, 1000):
        given = ask("next", sequence=sequence, previous=previous, leaving=mode == "left")
        if given["kind"] == "over":
            return
        if mode == "slow":
            time.sleep(1000.0)
        previous = {
            "simulation": given["simulation"],
            "lease": given["lease"],
            "outcome": "ended",
            "steps": 3,
        }
        if mode == "one":
            mode = "left"


if __name__ == "__main__":
    main(sys.argv[1])
