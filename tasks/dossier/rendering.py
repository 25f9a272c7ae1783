"""The page as one HTML file that makes no network request."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from tasks.dossier.blocks import Page

_TEMPLATES = ("page.html.j2", "blocks.html.j2")


def render_page(page: Page) -> bytes:
    """The finished HTML; all text is escaped, and a policy in its head forbids every request."""
    folder = files("tasks.dossier") / "templates"
    sources = {name: (folder / name).read_text(encoding="utf-8") for name in _TEMPLATES}
    environment = Environment(
        loader=DictLoader(sources), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style = Markup((folder / "style.css").read_text(encoding="utf-8"))
    return environment.get_template("page.html.j2").render(page=page, style=style).encode()
