"""Samples: who said what to which prompt, side by side."""

from __future__ import annotations

from analysis.load import Study
from analysis.pareto import front
from analysis.report.samples import ANSWER_SHOWN, sample_groups, samples
from tests.support.study_directory import PROMPTS, MakeRecord

HOSTILE = "</script><script>alert(1)</script>"


def test_answers_stand_side_by_side_the_bases_once_a_precision(study: Study) -> None:
    groups = sample_groups(front(study.records, study.objectives))
    assert [group.prompt for group in groups] == list(PROMPTS)
    who = [answer.who for answer in groups[0].answers]
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
    (group,) = sample_groups([one, other])
    assert group.prompt == "p"
    answers = group.answers
    assert [answer.text for answer in answers] == ["<r>", "b", "b", "t", "t"]
    assert answers[0].who == "Reference answer"
    assert answers[1].who == "Base model, nf4 · the reference’s perplexity 20.04"
    assert answers[3].who.endswith("· the reference’s perplexity 5")
    assert 'answer base"><figcaption>Reference answer</figcaption><p dir="auto">&lt;r&gt;</p>' in samples([one])


def test_no_samples_are_explained(record: MakeRecord) -> None:
    for members in ([], [record(0, samples=[])]):
        assert "No samples: the study has no generation.prompts" in samples(members)
