"""What a campaign demands of a step beyond finite numbers: ranges, and a function of the user's.

Made by the receiver, asked by its shard before a step counts as there. What is refused here no
other attempt would do better: the simulation is quarantined, and the campaign goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy.typing as npt

from penstock.wire import Header
from penstock_server.door import Refusal
from penstock_server.parts import PartPlaces
from penstock_server.references import find

Array = npt.NDArray[Any]
# check(fields, t, parameters): fields by name as read-only arrays of the sent shape, t (NaN for a
# steady problem), parameters by name. Gives None, or why the step is refused, in a sentence.
Check = Callable[[Mapping[str, Array], float, Mapping[str, float]], str | None]


class PhysicsError(ValueError):
    """The check that a campaign names cannot be had; the text says why."""


class Physics:
    """ranges: (least, greatest) value by field; check: the user's function, if there is one."""

    def __init__(
        self,
        ranges: Mapping[str, tuple[float, float]],
        check: Check | None = None,
        parameters: Sequence[str] = (),
        inputs: Collection[str] = (),
    ) -> None:
        """inputs: names of the input fields, whose ranges are no demand on steps."""
        self._ranges, self._check, self._parameters = dict(ranges), check, list(parameters)
        self._of_steps = not self._ranges.keys() <= set(inputs)

    def check_part(self, header: Header, places: PartPlaces, arrays: list[Array]) -> None:
        """Raises Refusal for values outside the range of their field."""
        if not self._of_steps:
            return
        for place, values in zip(places.places, arrays):
            self._check_range(place.name, values, f"at step {header.step}, part {header.part}")

    def check_inputs(self, part: int, values: Mapping[str, Array]) -> None:
        """Raises Refusal for values of input fields outside their range; by field, of one part."""
        for name, array in values.items():
            self._check_range(name, array, f"in part {part}")

    @property
    def demands(self) -> bool:
        """Whether anything is asked of a step."""
        return self._of_steps or self.sees_steps

    @property
    def sees_steps(self) -> bool:
        """Whether whole steps are to be shown to `check_step`."""
        return self._check is not None

    def check_step(self, step: int, fields: Mapping[str, Array], t: float, values: Array) -> None:
        """Raises Refusal for a step that the user's function does not let in, or fails on."""
        if self._check is None:
            return
        shown = {name: _read_only(array) for name, array in fields.items()}
        parameters = dict(zip(self._parameters, values.tolist()))
        try:
            why = self._check(shown, t, parameters)
        except Exception as error:
            why = f"the check itself failed: {type(error).__name__}: {error}"
        if why is not None:
            raise Refusal("physics", f"The admission check refused step {step}: {why}")

    def _check_range(self, name: str, values: Array, where: str) -> None:
        if name not in self._ranges or not len(values):
            return
        low, high = self._ranges[name]
        least, greatest = float(values.min()), float(values.max())
        if least < low or greatest > high:
            raise Refusal(
                "range",
                f"Field {name!r} has values from {least:.6g} to {greatest:.6g} {where}; the "
                f"campaign allows {low:g} to {high:g}.",
                name,
            )


def find_check(reference: str) -> Check:
    """The function behind `module:name`; raises PhysicsError when there is none."""
    check: Check = find(reference, "admission.check", PhysicsError)
    return check


def _read_only(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view


NO_DEMANDS = Physics({})
