"""Pictures that a run and its user get; the one place that knows matplotlib."""

from penstock_server.pictures.held_out import (
    Curves,
    Example,
    OverTime,
    demo_picture,
    most_pictorial,
    spread_labels,
)
from penstock_server.pictures.predicted import draw_fields

__all__ = [
    "Curves",
    "Example",
    "OverTime",
    "demo_picture",
    "draw_fields",
    "most_pictorial",
    "spread_labels",
]
