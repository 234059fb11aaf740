"""A network's prediction in physical units; `TrainedSurrogate` and the validator call it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from penstock_surrogates.normalisation import Normalisation
from penstock_surrogates.problem import Problem

CHUNK_BYTES = 64 << 20  # of predicted fields at a time


@torch.no_grad()
def predict(
    model: nn.Module,
    normalisation: Normalisation,
    problem: Problem,
    parameters: Tensor,
    t: Tensor,
    inputs: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Physical (b, p), (b, k), {name: (b, *shape)} -> physical {name: (b, k, *shape)}.

    The network sees the k times in windows of `problem.window` consecutive ones, as in training;
    the last window is filled up with the last time, and what it gives there is dropped.
    """
    given = dict(inputs or {})
    if set(given) != set(problem.inputs):
        raise ValueError(
            f"This surrogate needs the input fields {', '.join(problem.inputs) or 'none'}, "
            f"but it was given {', '.join(given) or 'none'}."
        )
    b, k = t.shape
    window = problem.window
    n_windows = -(-k // window)
    filled = torch.cat([t, t[:, -1:].expand(b, n_windows * window - k)], dim=1)
    times = normalisation.encode_t(filled).reshape(b * n_windows, window)
    encoded = normalisation.encode_parameters(parameters)
    encoded_inputs = normalisation.encode_fields(given)
    sample = torch.arange(b, device=t.device).repeat_interleave(n_windows)

    chunk = max(1, CHUNK_BYTES // (window * problem.size * encoded.element_size()))
    was_training = model.training
    model.eval()
    parts: dict[str, list[Tensor]] = {name: [] for name in problem.fields}
    for start in range(0, len(times), chunk):
        rows = sample[start : start + chunk]
        output = model(
            encoded[rows],
            times[start : start + chunk],
            {name: values[rows] for name, values in encoded_inputs.items()},
        )
        for name, values in normalisation.decode_fields(output).items():
            parts[name].append(values)
    model.train(was_training)
    return {
        name: torch.cat(parts[name]).reshape(b, n_windows * window, *spec.shape)[:, :k]
        for name, spec in problem.fields.items()
    }
