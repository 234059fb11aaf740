"""Launchers start and stop agents somewhere; the supervisor chooses one."""

from penstock_server.launch.launcher import Agency, Death, Launcher
from penstock_server.launch.local import LocalLauncher, mpi_command, mpi_environment

__all__ = ["Agency", "Death", "Launcher", "LocalLauncher", "mpi_command", "mpi_environment"]
