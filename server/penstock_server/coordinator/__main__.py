"""python -m penstock_server.coordinator --settings FILE: what the supervisor starts."""

from __future__ import annotations

import argparse

from penstock_server.coordinator.process import serve
from penstock_server.coordinator.settings import Settings
from penstock_server.processes import allow_many_files

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m penstock_server.coordinator")
    parser.add_argument("--settings", required=True, help="a JSON file that Settings.save wrote")
    allow_many_files()
    serve(Settings.load(parser.parse_args().settings))
