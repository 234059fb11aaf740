#!/usr/bin/env bash
# Installs the base distribution into an empty environment and fails if anything of the server can
# be imported through it. `make check-client` calls it.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=.cache/client-venv
rm -rf "$folder" && mkdir -p .cache
echo "check-client: installing the bare client in $folder"
.venv/bin/python -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt .

cd "$folder" # away from the checkout, so that only what is installed is seen
env -u PYTHONPATH ./bin/python - <<'PYTHON'
import importlib.util
import subprocess
import sys

import penstock

assert "site-packages" in penstock.__file__, penstock.__file__
heavy = ("torch", "ray", "scipy", "pydantic", "typer", "matplotlib", "prometheus_client")
found = [name for name in heavy if importlib.util.find_spec(name)]
assert not found, f"The base installation brings {', '.join(found)}; keep them in an extra."
foreign = {name.partition(".")[0] for name in sys.modules} & {"penstock_server", "mpi4py", *heavy}
assert not foreign, f"`import penstock` imported {', '.join(sorted(foreign))}."
with penstock.connect(parameters={"a": 1.0}) as link:
    for sim in link.simulations():
        sim.send(0.0, u=[0.0, 1.0])
done = subprocess.run([sys.prefix + "/bin/penstock"], capture_output=True, text=True)
assert done.returncode == 2, done
assert 'pip install ".[server]"' in done.stderr, done.stderr
solver = "import numpy; [numpy.save(f'u_{i}.npy', [0.0, ${a}]) for i in range(3)]"
done = subprocess.run(
    [
        sys.prefix + "/bin/penstock", "wrap", "--field", "u=u_*.npy", "--parameter", "a=1",
        "--", sys.executable, "-c", solver,
    ],
    capture_output=True,
    text=True,
)
assert done.returncode == 0 and "3 steps of u (2,)" in done.stderr, done
print("check-client: the client works alone, without torch and ray")
PYTHON
rm -rf "../client-venv"
