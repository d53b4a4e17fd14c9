"""Figures on the page: title, caption, and the numbers behind; data for a script, or a picture."""

from __future__ import annotations

import json

from analysis.figures.every import figures
from analysis.load import Study
from analysis.report.drawing import drawing
from tests.support.html_pages import HtmlPage


def test_a_figure_has_title_caption_and_numbers(study: Study) -> None:
    figure = figures(study)["memory"]
    markup = drawing(figure, with_javascript=True)
    assert "<h3>Peak memory, predicted and measured</h3>" in markup
    assert "<figcaption>Closer to the line" in markup
    assert markup.count("<tr>") == 1 + len(figure.rows)
    page = HtmlPage(markup)
    assert page.ids == ["figure-memory"]
    assert "title" not in json.loads(page.scripts[0])  # it stands above, as text


def test_without_javascript_a_figure_is_a_picture(study: Study) -> None:
    page = HtmlPage(drawing(figures(study)["front"], with_javascript=False))
    assert page.tags.count("svg") == 1
    assert page.scripts == []
