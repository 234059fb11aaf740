"""The program `penstock`: hands over to the server's command line, if the server is installed.

`penstock wrap` alone is the client's own: it runs where the solvers run.
"""

from __future__ import annotations

import importlib
import sys

SERVER_PYTHON = (3, 11)


def main() -> int:
    """Entry point of the script; the light client alone answers with how to get the server."""
    if sys.argv[1:2] == ["wrap"]:
        from penstock import wrap

        return wrap.main(sys.argv[2:])
    if sys.version_info < SERVER_PYTHON:
        version = ".".join(map(str, sys.version_info[:3]))
        return _explain(f"the server needs Python 3.11 or newer, and this is Python {version}")
    try:
        cli = importlib.import_module("penstock_server.cli")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("penstock"):
            raise  # a broken installation, not a missing extra
        return _explain(f"the package {error.name} of the server is not installed here")
    return int(cli.main() or 0)


def _explain(why: str) -> int:
    print(
        f"penstock: {why}.\n"
        "This installation has the light client for solvers (import penstock) and `penstock wrap` "
        "for programs that stay as they are. For the training server and its commands, from a "
        "checkout:\n"
        '    pip install ".[server]"',
        file=sys.stderr,
    )
    return 2


if __name__ == "__main__":
    sys.exit(main())
