"""`penstock` as a child that ends in order when its parent does; `runner` starts it."""

from __future__ import annotations

import signal
import sys

from penstock.processes import die_with_parent

if __name__ == "__main__":
    die_with_parent(signal.SIGTERM)
    from penstock_server.cli import main

    sys.exit(main())
