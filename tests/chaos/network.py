"""A network namespace of the test's own, in which packets can be dropped; Linux, root, iptables."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence


class Network:
    """The machine's own network, in which nothing can be disturbed."""

    prefix: Sequence[str] = ()  # of a command that is to run in it

    def disturb(self, ports: Sequence[int], share: float = 1.0) -> None:
        """Drops this share of the packets from and to the ports."""
        raise AssertionError("Only a Namespace can be disturbed.")

    def mend(self) -> None:
        """Lets everything pass again."""

    def close(self) -> None:
        """Takes it away."""


class Namespace(Network):
    """One with a loopback interface alone."""

    def __init__(self) -> None:
        self._name = f"penstock-chaos-{os.getpid()}"
        self.prefix = ("ip", "netns", "exec", self._name)
        _call("ip", "netns", "add", self._name)
        _call("ip", "-n", self._name, "link", "set", "lo", "up")

    @staticmethod
    def missing() -> str | None:
        """Why there can be none here, or None."""
        if os.geteuid() != 0:
            return "network namespaces need root"
        absent = [name for name in ("ip", "iptables") if shutil.which(name) is None]
        if absent:
            return f"{' and '.join(absent)} not found; `make test-chaos` installs them as root"
        return None

    def disturb(self, ports: Sequence[int], share: float = 1.0) -> None:
        chance = [] if share == 1.0 else ["-m", "statistic", "--mode", "random"]
        chance += [] if share == 1.0 else ["--probability", str(share)]
        for port in ports:
            for side in ("--dport", "--sport"):
                rule = ["INPUT", "-p", "tcp", side, str(port), *chance, "-j", "DROP"]
                _call(*self.prefix, "iptables", "-A", *rule)

    def mend(self) -> None:
        _call(*self.prefix, "iptables", "-F", "INPUT")

    def close(self) -> None:
        _call("ip", "netns", "delete", self._name)


def _call(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"
