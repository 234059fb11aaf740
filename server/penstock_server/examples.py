"""The campaign files that come with Penstock; `penstock demo` and the tests take them from here."""

from __future__ import annotations

from pathlib import Path


def campaigns_folder() -> Path:
    """deploy/campaigns of a checkout, or the copy inside an installed package."""
    here = Path(__file__).resolve().parent
    checkout = here.parents[1] / "deploy" / "campaigns"
    return checkout if checkout.is_dir() else here / "campaigns"


def example(name: str) -> Path:
    """The path of a campaign by its name without .toml; says which there are if it is unknown."""
    path = campaigns_folder() / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in campaigns_folder().glob("*.toml")))
        raise FileNotFoundError(f"There is no example campaign {name}; choose one of {known}.")
    return path
