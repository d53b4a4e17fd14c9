"""What the base model and the tuned ones said to each prompt, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from analysis.report.rendering import note, render
from analysis.wording import configuration_name, format_number, shorten
from study.records.record import TrialRecord

ANSWER_SHOWN = 8000  # characters


@dataclass(frozen=True)
class Answer:
    """What one model said, or the reference answer; tuned models stand out on the page."""

    who: str
    text: str
    is_tuned: bool = False


@dataclass(frozen=True)
class Group:
    """All answers to one prompt."""

    prompt: str
    answers: tuple[Answer, ...]


def samples(members: Sequence[TrialRecord]) -> Markup:
    """The answers of the front's members and of their base models, one fold for each prompt."""
    groups = sample_groups(members)
    if not groups:
        return note("No samples: the study has no generation.prompts, or no trial is complete.")
    return render("samples.html", groups=groups)


def sample_groups(members: Sequence[TrialRecord]) -> list[Group]:
    """For each prompt who said what: the reference if any, the base once a precision, each member of the front."""
    prompts = list(dict.fromkeys(str(sample.get("prompt")) for record in members for sample in record.samples))
    return [Group(prompt, _answers(prompt, members)) for prompt in prompts]


def _answers(prompt: str, members: Sequence[TrialRecord]) -> tuple[Answer, ...]:
    reference: list[Answer] = []
    bases: dict[str, Answer] = {}
    tuned: list[Answer] = []
    for record in members:
        for sample in record.samples:
            if str(sample.get("prompt")) == prompt:
                base = f"Base model, {record.config.precision}{_of_reference(sample, 'base')}"
                bases.setdefault(base, _answer(base, sample.get("base")))
                who = f"{record.trial_id}: {configuration_name(record)}{_of_reference(sample, 'tuned')}"
                tuned.append(_answer(who, sample.get("tuned"), is_tuned=True))
                if sample.get("reference"):
                    reference = [_answer("Reference answer", sample["reference"])]
    return (*reference, *bases.values(), *tuned)


def _answer(who: str, text: Any, is_tuned: bool = False) -> Answer:
    return Answer(who, shorten(str(text or ""), ANSWER_SHOWN), is_tuned)


def _of_reference(sample: Mapping[str, Any], who: str) -> str:
    """How likely the reference answer is to a model, where it was asked a held-out question."""
    value = sample.get(f"{who}_perplexity")
    return "" if not isinstance(value, int | float) else f" · the reference’s perplexity {format_number(value)}"
