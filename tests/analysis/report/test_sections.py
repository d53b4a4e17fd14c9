"""Notices, figures' surroundings, samples and provenance."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from analysis.figures.every import figures
from analysis.load import Study
from analysis.pareto import front
from analysis.report.sections import (
    ANSWER_SHOWN,
    PROCESS_MEMORY,
    Part,
    figure,
    navigation,
    notices,
    provenance,
    sample_groups,
    samples,
    whole,
)
from tests.support.study_directory import PROMPTS, MakeRecord

HOSTILE = "</script><script>alert(1)</script>"


# -- notices -----------------------------------------------------------------------------------------------------------


def test_a_study_that_compares_needs_no_notice(study: Study) -> None:
    assert notices(study) == ""


def test_process_memory_is_called_what_it_is(study: Study, record: MakeRecord) -> None:
    cpu = replace(study, records=(record(device={"memory_source": "process resident peak"}),))
    assert PROCESS_MEMORY in notices(cpu)


def test_what_does_not_compare_is_said(study: Study, record: MakeRecord) -> None:
    other_cost = record(1, comparable={"quality": "0a1b", "cost": "other"})
    text = notices(replace(study, records=(record(0), other_cost)))
    assert "Not all complete trials compare in cost; device, batch or engine differ" in text
    assert "compare in quality" not in text
    other_data = record(2, comparable={"quality": "other", "cost": "2c3d"})
    assert "compare in quality; base model, data or masking differ" in notices(
        replace(study, records=(record(0), other_data))
    )
    stopped = replace(other_data, status="stopped")
    assert notices(replace(study, records=(record(0), stopped, record(3, comparable={})))) == ""


# -- parts and figures -------------------------------------------------------------------------------------------------


def test_every_link_leads_to_its_part() -> None:
    parts = [Part("front", "The <front>", "<p>x</p>"), Part("trials", "Trials", "")]
    assert navigation(parts) == (
        '<nav aria-label="Parts"><a href="#front">The &lt;front&gt;</a><a href="#trials">Trials</a></nav>'
    )
    assert '<section id="front">\n<h2>The &lt;front&gt;</h2>\n<p>x</p>\n</section>' in whole(parts)
    assert '<section id="trials">' in whole(parts)


def test_a_figure_has_title_caption_and_numbers(study: Study) -> None:
    drawn = figures(study)["memory"]
    markup = figure(drawn, "<svg></svg>")
    assert "<h3>Peak memory, predicted and measured</h3>\n<svg></svg>\n<figcaption>Closer to the line" in markup
    assert markup.count("<tr>") == 1 + len(drawn.rows)


# -- samples -----------------------------------------------------------------------------------------------------------


def test_answers_stand_side_by_side_the_bases_once_a_precision(study: Study) -> None:
    groups = sample_groups(front(study.records, study.objectives))
    assert [prompt for prompt, _ in groups] == list(PROMPTS)
    who = [name for name, _ in groups[0][1]]
    assert who[:2] == ["Base model, nf4", "Base model, bf16"]
    assert who[2] == "t004: nf4, rank 8, q_v, learning rate 2e-4"
    assert len(who) == 2 + 6


def test_the_first_prompt_is_open(study: Study) -> None:
    markup = samples(front(study.records, study.objectives))
    assert markup.count('<details class="prompt" open>') == 1
    assert markup.count('<details class="prompt">') == 1
    assert markup.count('class="answer base"') == 4


def test_hostile_empty_and_endless_answers(record: MakeRecord) -> None:
    odd = record(0, samples=[{"prompt": HOSTILE, "base": "", "tuned": "y" * (2 * ANSWER_SHOWN)}])
    worse = record(
        1, samples=[{"prompt": HOSTILE, "base": HOSTILE, "tuned": HOSTILE}, {"prompt": "p", "base": HOSTILE}]
    )
    markup = samples([odd, worse])
    assert "<script" not in markup
    assert markup.count("alert(1)") == 3  # the prompt, one base, one tuned: the first base stands for its precision
    assert "<i>(nothing)</i>" in markup
    assert "y" * ANSWER_SHOWN + " …" in markup
    assert "y" * (ANSWER_SHOWN + 1) not in markup


def test_a_reference_stands_first_and_each_answer_says_how_likely_it_is(record: MakeRecord) -> None:
    asked = {"prompt": "p", "base": "b", "tuned": "t", "reference": "<r>"}
    likely = {"base_perplexity": 20.04, "tuned_perplexity": 5.0}
    one, other = record(0, samples=[{**asked, **likely}]), record(1, samples=[asked])
    ((prompt, answers),) = sample_groups([one, other])
    assert prompt == "p"
    assert [text for _, text in answers] == ["<r>", "b", "b", "t", "t"]
    assert answers[0][0] == "Reference answer"
    assert answers[1][0] == "Base model, nf4 · the reference’s perplexity 20.04"
    assert answers[3][0].endswith("· the reference’s perplexity 5")
    assert 'answer base"><figcaption>Reference answer</figcaption><p dir="auto">&lt;r&gt;</p>' in samples([one])


def test_no_samples_are_explained(record: MakeRecord) -> None:
    for members in ([], [record(0, samples=[])]):
        assert "No samples: the study has no generation.prompts" in samples(members)


# -- provenance --------------------------------------------------------------------------------------------------------


def test_provenance_names_model_device_data_and_seeds(study: Study) -> None:
    markup = provenance(study)
    for text in (
        "<dd>SmolLM2-135M main</dd>", "<dd>Tesla T4</dd>", "float16 (bf16), float16 (nf4)", "cuda allocator peak",
        "9c56cc51b374c3ba", "Versions and hardware", "<dt>peft</dt><dd>0.21.2</dd>", "max_tokens: 512",
        "<th scope=\"row\">eval</th><td class=\"number\">32</td>",
    ):  # fmt: skip
        assert text in markup


def test_provenance_says_what_the_cards_cost(study: Study) -> None:
    cost = {
        "seconds": 5400, "cards": 4, "card": "NVIDIA T4", "gpu_hours": 6.0, "price_per_hour": 0.526, "price_usd": 3.156,
        "price_source": "AWS, 2025-06",
    }  # fmt: skip
    words = "1 h 30 min on 4 x NVIDIA T4: 6.00 GPU-hours, 3.16 USD at 0.526 USD an hour and card (AWS, 2025-06)"
    assert words in provenance(replace(study, cost=cost))
    assert words.split(",")[0] + "</dd>" in provenance(replace(study, cost={**cost, "price_usd": None}))
    assert "<dt>time and price</dt><dd>–</dd>" in provenance(replace(study, cost={**cost, "cards": "many"}))


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
