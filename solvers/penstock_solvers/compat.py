"""The calls in which DOLFINx 0.5 to 0.11 differ; the FEniCSx solvers go through them.

Linear and nonlinear problems use petsc4py's KSP and SNES directly: dolfinx's own wrappers differ
in every release, and so does the sign argument of apply_lifting (give it by position).
"""

from __future__ import annotations

import logging
from typing import Any

import dolfinx
import numpy as np
import ufl
from dolfinx import fem
from dolfinx import mesh as meshes

logging.disable(logging.INFO)  # JIT of 0.5 names every form it compiles on stderr
VERSION = tuple(int(part) for part in dolfinx.__version__.split(".")[:2])
OLD = VERSION < (0, 7)


def lagrange(mesh: Any, degree: int = 1, shape: tuple[int, ...] = ()) -> Any:
    """The space of continuous piecewise polynomials: scalars, or vectors of `shape` (d,)."""
    if not OLD:
        element = ("Lagrange", degree, shape) if shape else ("Lagrange", degree)
        return fem.functionspace(mesh, element)
    space = fem.VectorFunctionSpace if shape else fem.FunctionSpace
    return space(mesh, ("CG", degree), **({"dim": shape[0]} if shape else {}))


def compile_form(form: Any, **jit: Any) -> Any:
    """fem.form with a signature that is the same in every run; `jit` are its JIT options.

    ffcx of 0.5 writes a variant into the mesh's coordinate element whenever it compiles something,
    which changes the signature of the forms after it: a cache then takes one run per form to fill.
    """
    domains = form.ufl_domains() if OLD else ()
    elements = [domain._ufl_coordinate_element for domain in domains]
    options = {"jit_params" if VERSION < (0, 6) else "jit_options": jit}
    compiled = fem.form(form, **options)
    for domain, element in zip(domains, elements):
        domain._ufl_coordinate_element = element
    return compiled


def petsc_vector(u: Any) -> Any:
    """The PETSc vector that shares a Function's memory."""
    return u.x.petsc_vec if hasattr(u.x, "petsc_vec") else u.vector


def create_vector(form: Any, space: Any) -> Any:
    """An empty PETSc vector for assembling the linear `form` on `space`."""
    import dolfinx.fem.petsc as petsc

    return petsc.create_vector(form if VERSION < (0, 10) else space)


def interpolation_points(space: Any) -> Any:
    """The reference points of an element, for fem.Expression; (points, dimension)."""
    points = space.element.interpolation_points
    return points() if callable(points) else points


def create_mesh(comm: Any, cells: Any, beyond: Any, points: Any, shape: str = "triangle") -> Any:
    """A mesh of cells (cells, corners) and points (points, dimension), cut as the caller says.

    Points and corners are numbered globally, rank after rank; every cell stays on the rank that
    gave it, as the default partitioner cuts differently in every run. `beyond` (cells,): the rank
    on the other side of one of the cell's facets, or this rank (0.5 joins the parts by ghosts).
    """

    def stay(*_: Any) -> Any:
        ghost = np.asarray(beyond) != comm.rank
        pairs = np.stack([np.full(len(cells), comm.rank), beyond], axis=1)
        to = pairs[np.stack([np.ones_like(ghost), ghost], axis=1)].astype(np.int32)
        offsets = np.concatenate([[0], np.cumsum(1 + ghost)]).astype(np.int32)
        return dolfinx.cpp.graph.AdjacencyList_int32(to, offsets)

    dimension = points.shape[1]
    if OLD:
        domain = ufl.Mesh(ufl.VectorElement("Lagrange", shape, 1, dim=dimension))
    else:
        import basix.ufl

        domain = ufl.Mesh(basix.ufl.element("Lagrange", shape, 1, shape=(dimension,)))
    order = (domain, points) if VERSION >= (0, 10) else (points, domain)
    return meshes.create_mesh(comm, cells, *order, partitioner=stay)
