"""The whole page: what was measured, then what is predicted, in tables of their own.

Measured numbers come from `results/`: each study directory there, each memory table, the comparisons with PEFT. What
no card has measured is predicted from shapes.
"""

from __future__ import annotations

import json

from analysis.load import load_study
from tests.benchmarks.results_page.bench_sections import alone_section, memory_section, several_cards_section
from tests.benchmarks.results_page.planned_study import planned_section
from tests.benchmarks.results_page.predictions import prediction_section
from tests.benchmarks.results_page.studies import study_section
from tests.support.places import RESULTS, ROOT

PAGE = ROOT / "analysis" / "guide" / "results.md"
INTRODUCTION = """\
# Published results

The paper grid (precision, rank 8 or 64, q and v or all linear layers) on every model and card that it was measured on
so far. `python -m tests.benchmarks.results_page` writes this page from the files in
[`tests/benchmarks/results`](../../tests/benchmarks/results); no number is typed by hand, and a test fails where page
and files differ. A *measurement* was observed on the device, a *prediction* follows from the model's shape; they never
share a column. What does not fit is listed like everything else. [How each number is measured](how_measured.md).
"""
MISSING = """\
## Not measured yet

- Anything on a T4, and anything on a cluster of several machines: none was at hand. A T4's rows are predictions.
- The quality of Llama-3 models: their weights are gated. Memory and speed do not depend on weights' values, so they
  were measured with random weights; perplexity and accuracy cannot be.
- More than one seed of the grid: no interval above says how much the seed matters.

To add a study of your own to this page, put its `study.yaml`, `results.jsonl` and `provenance.json` into a
folder of `tests/benchmarks/results`, and write the page again.
"""


def page() -> str:
    """The whole page as Markdown."""
    studies = [load_study(file.parent) for file in sorted(RESULTS.glob("*/study.yaml"))]
    tables = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(RESULTS.glob("memory_table_*.json"))]
    step = json.loads((RESULTS / "packed_step_h100.json").read_text(encoding="utf-8"))
    two = json.loads((RESULTS / "several_cards_h100.json").read_text(encoding="utf-8"))
    parts = [INTRODUCTION, *map(study_section, studies), *map(memory_section, tables), alone_section(step)]
    parts.append(several_cards_section(two))
    return "\n".join([*parts, prediction_section(), planned_section(), MISSING])
