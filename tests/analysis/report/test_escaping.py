"""No text of a record, a name, a sample or an error becomes a part of the page's HTML."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.figures.every import figures
from analysis.load import Study
from analysis.notebook import show_table
from analysis.report import page as page_module
from analysis.report.drawing import drawing
from analysis.report.page import report_page
from analysis.report.rendering import script_json
from analysis.tables.samples import samples_table
from study.records.objectives import Objective
from study.records.record import TrialRecord
from tests.support.html_pages import HtmlPage
from tests.support.study_directory import GIB, make_record, study_settings

ATTACKS = (
    "<script>alert(1)</script>", "</script>", "</ScRiPt >", "<!--", "-->", "]]>", '"', "'", "&lt;",
    "&", "<b x=", "<img src=x onerror=y>",
    "</pre>", "</details>", "</style>", "</title>", "{{ 7 * 7 }}", "{% raw %}", "{#", "$title", "\u2028", "é",
)  # fmt: skip
TEXTS = st.lists(st.sampled_from(ATTACKS) | st.text("<>&\"'/=!-x ;", min_size=1, max_size=6), min_size=1, max_size=5)
OBJECTIVES = (Objective("perplexity", "minimize", 30.0), Objective("peak_memory_bytes", "minimize", 1.25 * GIB))


def written(text: str) -> Study:
    """A study with this text wherever a user, a model, a library or an error can write; the places told apart."""
    info = {name: f"{name} {text}" for name in ("name", "compute_dtype", "memory_source")}
    samples = [{"prompt": f"p {text}", "base": f"b {text}", "tuned": f"t {text}", "reference": f"r {text}"}]
    facts: dict[str, Any] = {
        "device": info,
        "base_model": {"path": f"m {text}", "revision": f"v {text}", "sha256": f"s {text}"},
        "dataset": {"fingerprint": f"f {text}", "statistics": {f"split {text}": {"rows": 3}}},
    }
    asked = {"moment": f"i {text}", "source": f"o {text}", "requested_bytes": 2 * GIB, "available_bytes": GIB}
    asked |= {"components": {f"c {text}": GIB}}
    records: tuple[TrialRecord, ...] = (
        make_record(0, trial_id=f"0 {text}", samples=samples, **facts),
        make_record(1, rank=64, trial_id=f"1 {text}", **facts),
        make_record(2, trial_id=f"2 {text}", status="infeasible", reason=f"r {text}", infeasible=asked, **facts),
        make_record(
            3, trial_id=f"3 {text}", status="failed", reason=f"r {text}", error=f"e {text}\ne2 {text}", **facts
        ),
    )
    cost = {"seconds": 9.0, "cards": 1, "card": f"k {text}", "gpu_hours": 1.0, "price_usd": 1.0, "price_per_hour": 1.0}
    return Study(
        name=f"n {text}",
        directory=Path("nowhere"),
        objectives=OBJECTIVES,
        records=records,
        provenance={f"a {text}": [f"b {text}", {f"c {text}": f"d {text}"}], "plain": [f"x {text}", f"y {text}"]},
        settings={**study_settings(), "dataset": {"seed": f"s {text}"}, f"z {text}": text},
        cost={**cost, "price_source": f"w {text}"},
    )


def harmless(text: str) -> str:
    """As many letters in the place of everything that HTML or a template could mean something by."""
    return re.sub(r"[^\w\s\u2028]", "x", text)


@pytest.fixture(scope="module")
def without_figures() -> Iterator[None]:
    """Drawing takes most of a page's time, and has a test of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_module, "figures", lambda study: {})
        yield


@pytest.mark.usefixtures("without_figures")
@settings(deadline=None, max_examples=60)
@given(TEXTS)
def test_no_text_changes_the_elements_of_the_page(drawn: list[str]) -> None:
    text = "".join(drawn)
    page, expected = (HtmlPage(report_page(written(one))) for one in (text, harmless(text)))
    assert page.elements == expected.elements
    assert page.ids == expected.ids
    assert page.scripts == expected.scripts
    assert (page.handlers, page.loads) == ([], [])
    for place in ("n", "0", "1", "2", "3", "p", "b", "t", "r", "e", "m", "f", "i", "x"):
        assert f"{place} {text}" in page.text, place  # it stands there as it was written


@pytest.mark.parametrize("with_javascript", [True, False])
@settings(deadline=None, max_examples=8)
@given(TEXTS)
def test_no_text_changes_the_elements_of_a_figure(with_javascript: bool, drawn: list[str]) -> None:
    """As data in a script element, and as a picture."""
    text = "".join(drawn)
    pages = []
    for one in (text, harmless(text)):
        markup = "".join(drawing(figure, with_javascript) for figure in figures(written(one)).values())
        pages.append(HtmlPage(markup))
    assert pages[0].tags == pages[1].tags
    assert (pages[0].handlers, pages[0].loads) == ([], [])
    assert len(pages[0].scripts) == (3 if with_javascript else 0)
    if with_javascript:  # it stands in the front's data as it was written
        rows = [row for layer in json.loads(pages[0].scripts[0])["layer"] for row in layer["data"]["values"]]
        assert {f"0 {text}", f"1 {text}"} <= {row.get("trial_id") for row in rows}


@settings(deadline=None, max_examples=60)
@given(TEXTS)
def test_no_text_changes_the_elements_of_a_notebooks_table(drawn: list[str]) -> None:
    text = "".join(drawn)

    def shown(text: str) -> HtmlPage:
        table = samples_table(written(text))
        return HtmlPage(show_table(table)._repr_mimebundle_()["text/html"])

    assert shown(text).elements == shown(harmless(text)).elements
    assert f"p {text}" in shown(text).text


@settings(deadline=None, max_examples=200)
@given(TEXTS, TEXTS)
def test_json_in_a_script_element_stays_in_it_and_reads_back(keys: list[str], drawn: list[str]) -> None:
    value = {"".join(keys): drawn}
    page = HtmlPage(f"<script>{script_json(value)}</script><p>after</p>")
    assert page.tags == ["script", "p"]
    assert json.loads(page.scripts[0]) == value


@pytest.mark.usefixtures("without_figures")
def test_the_reader_sees_what_was_not_escaped() -> None:
    written_page = report_page(written("y"))
    attacked = written_page.replace("n y", "<script>alert(1)</script>")
    assert HtmlPage(attacked).elements != HtmlPage(written_page).elements
