"""Writes the page of published results: `python -m tests.benchmarks.results_page`."""

from __future__ import annotations

from tests.benchmarks.results_page.page import PAGE, page

PAGE.write_text(page(), encoding="utf-8")
print(PAGE)
