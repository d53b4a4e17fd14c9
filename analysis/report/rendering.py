"""Renders the report's templates; every text in them is escaped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis.wording import DASH

TEMPLATES = Path(__file__).with_name("templates")
ENVIRONMENT = Environment(
    loader=FileSystemLoader(TEMPLATES),
    autoescape=True,
    undefined=StrictUndefined,  # a name that a template misspells is an error, not an empty place
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
ENVIRONMENT.globals["dash"] = DASH


def render(template: str, **values: Any) -> Markup:
    """A file of `templates` with these values as HTML; what is no `Markup` among them is escaped."""
    return Markup(ENVIRONMENT.get_template(template).render(values))


def note(text: str) -> Markup:
    """A quiet sentence."""
    return render("note.html", text=text)


def script_json(value: Any) -> Markup:
    """JSON that may stand inside a script element: no `<` can end it or begin a comment.

    Raises ValueError for NaN and infinity.
    """
    text = json.dumps(value, allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
