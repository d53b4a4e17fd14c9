"""Where the numbers come from: what is said of model, data and price, and what may be missing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from analysis.load import Study
from analysis.report.provenance import provenance
from tests.support.study_directory import MakeRecord

HOSTILE = "</script><script>alert(1)</script>"


def test_provenance_names_model_device_data_and_seeds(study: Study) -> None:
    markup = provenance(study)
    for text in (
        "<dd>SmolLM2-135M main</dd>", "<dd>Tesla T4</dd>", "float16 (bf16), float16 (nf4)", "cuda allocator peak",
        "9c56cc51b374c3ba", "Versions and hardware", "<dt>peft</dt><dd>0.21.2</dd>", "max_tokens: 512",
        "<th scope=\"row\">eval</th><td class=\"number\">32</td>",
    ):  # fmt: skip
        assert text in markup


def test_provenance_says_what_rows_were_left_out(study: Study, record: MakeRecord) -> None:
    counts = {"train": {"rows": 90, "left_out": 0, "empty": 3}, "eval": {"rows": 10, "left_out": 2, "overlap": 4}}
    markup = provenance(replace(study, records=(record(0, dataset={"statistics": counts}),)))
    for text in ("3 rows of the training data left out", "2 rows left out beside the evaluation", "4 rows of the eval"):
        assert text in markup
    assert "completion is empty" not in provenance(study)
    assert "no target is left within dataset.max_tokens" in provenance(study)


def test_provenance_says_what_the_cards_cost(study: Study) -> None:
    cost = {
        "seconds": 5400, "cards": 4, "card": "NVIDIA T4", "gpu_hours": 6.0, "price_per_hour": 0.526, "price_usd": 3.156,
        "price_source": "AWS, 2025-06",
    }  # fmt: skip
    words = "1 h 30 min on 4 x NVIDIA T4: 6.00 GPU-hours, 3.16 USD at 0.526 USD an hour and card (AWS, 2025-06)"
    assert words in provenance(replace(study, cost=cost))
    assert words.split(",")[0] + "</dd>" in provenance(replace(study, cost={**cost, "price_usd": None}))
    assert "<dt>time and price</dt><dd>–</dd>" in provenance(replace(study, cost={**cost, "cards": "many"}))


def test_provenance_says_which_study_measured_what_was_taken_over(study: Study, record: MakeRecord) -> None:
    assert "<dt>memory and speed taken over from</dt><dd>–</dd>" in provenance(study)
    device = {"cost_taken_over_from": {"directory": f"/runs/{HOSTILE}", "measured_at": "2030-01-02T03:04:05+00:00"}}
    markup = provenance(replace(study, records=(record(0), record(1, device=device), record(2, device=device))))
    assert markup.count("(2030-01-02T03:04:05+00:00)") == 1
    assert "/runs/" in markup
    assert "<script" not in markup


def test_little_provenance_is_no_fault(study: Study, record: MakeRecord) -> None:
    nothing: dict[str, Any] = {"device": {}, "dataset": {}, "base_model": {}}
    bare = replace(study, records=(record(0, **nothing),), provenance={}, settings={"name": HOSTILE})
    markup = provenance(bare)
    assert "Versions and hardware" not in markup
    assert "lengths in tokens" not in markup
    assert "<dt>device</dt><dd>–</dd>" in markup
    assert "<script" not in markup
    assert "<dt>base model</dt><dd>–</dd>" in provenance(replace(bare, records=()))


def test_a_dataset_setting_that_is_no_mapping_is_no_fault(study: Study) -> None:
    assert "seed of the data" in provenance(replace(study, settings={"dataset": None}))
