"""A page as HTML, by the template beside this file; `report.writing` calls it."""

from __future__ import annotations

from importlib.metadata import version

from jinja2 import Environment, PackageLoader, StrictUndefined

from penstock_server.report.blocks import Page


def render(page: Page) -> str:
    """One HTML document without a reference to anything outside of it.

    Names and messages come from campaign files and solvers, so everything is escaped.
    """
    environment = Environment(
        loader=PackageLoader("penstock_server.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(page=page, version=version("penstock"))
