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

    The network sees the k times in windows of `problem.window`, each `problem.stride` after the
    one before, as in training; the last windows are filled up with the last time, and what they
    give there is dropped.
    """
    given = dict(inputs or {})
    if set(given) != set(problem.inputs):
        raise ValueError(
            f"This surrogate needs the input fields {', '.join(problem.inputs) or 'none'}, "
            f"but it was given {', '.join(given) or 'none'}."
        )
    b, k = t.shape
    order, place = _windows(k, problem.window, problem.stride)
    n_windows = len(order)
    times = normalisation.encode_t(t)[:, order.flatten()].reshape(b * n_windows, problem.window)
    encoded = normalisation.encode_parameters(parameters)
    encoded_inputs = normalisation.encode_fields(given)
    sample = torch.arange(b, device=t.device).repeat_interleave(n_windows)

    chunk = max(1, CHUNK_BYTES // (problem.window * problem.size * encoded.element_size()))
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
        name: torch.cat(parts[name]).reshape(b, n_windows * problem.window, *spec.shape)[:, place]
        for name, spec in problem.fields.items()
    }


def _windows(k: int, window: int, stride: int) -> tuple[Tensor, Tensor]:
    """Which of k times each window has, (n, window), and where each time is in them, (k,).

    Windows begin at `stride` times in a row, and go on behind the last of these.
    """
    length = window * stride
    blocks = torch.arange(-(-k // length) * length).reshape(-1, window, stride).transpose(1, 2)
    order = blocks.reshape(-1, window)
    order = order[order[:, 0] < k]  # the others have no time of their own
    place = torch.empty(k, dtype=torch.int64)
    own = order.flatten() < k
    place[order.flatten()[own]] = torch.arange(order.numel())[own]
    return order.clamp(max=k - 1), place
