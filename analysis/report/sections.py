"""The report's parts beside its tables: notices, figures, samples, provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from analysis.figures.parts import Figure, measures_process
from analysis.load import Study
from analysis.report.html import definitions, escape, grid, note
from analysis.tables import Table
from analysis.wording import DASH, configuration_name, format_duration, format_number, shorten
from study.records.record import TrialRecord

PROCESS_MEMORY = (
    "Measured on a CPU: peak memory is the process’ resident peak, with Python and all libraries in it. "
    "It orders these configurations, but says nothing of a GPU’s memory."
)
BASE = "Base model, "
REFERENCE = "Reference answer"
ANSWER_SHOWN = 8000  # characters
LENGTHS = (
    ("rows", "rows"), ("dropped", "dropped"), ("truncated", "truncated"), ("tokens", "tokens"),
    ("target_tokens", "target tokens"), ("min_length", "shortest"), ("median_length", "median"),
    ("p95_length", "95th percentile"), ("max_length", "longest"),
)  # fmt: skip


def notices(study: Study) -> str:
    """What a reader must know before comparing numbers."""
    texts = [PROCESS_MEMORY] if measures_process(study.records) else []
    complete = [record for record in study.records if record.status == "complete"]
    for kind, consequence in (
        ("quality", "base model, data or masking differ: their perplexity does not compare"),
        ("cost", "device, batch or engine differ: their memory and speed do not compare"),
    ):
        if len({record.comparable[kind] for record in complete if kind in record.comparable}) > 1:
            texts.append(f"Not all complete trials compare in {kind}; {consequence}.")
    return "".join(f'<p class="notice">{escape(text)}</p>' for text in texts)


@dataclass(frozen=True)
class Part:
    """A part of the page: its anchor, its heading, and its HTML."""

    anchor: str
    heading: str
    markup: str


def navigation(parts: Sequence[Part]) -> str:
    """Links to the parts."""
    links = "".join(f'<a href="#{part.anchor}">{escape(part.heading)}</a>' for part in parts)
    return f'<nav aria-label="Parts">{links}</nav>'


def whole(parts: Sequence[Part]) -> str:
    """The parts with their headings, one after another."""
    return "\n".join(
        f'<section id="{part.anchor}">\n<h2>{escape(part.heading)}</h2>\n{part.markup}\n</section>' for part in parts
    )


def figure(drawn: Figure, markup: str) -> str:
    """A figure's markup with its title, its caption, and the numbers behind it."""
    caption = f"<figcaption>{escape(drawn.caption)}</figcaption>"
    numbers = f"<details><summary>The numbers behind this figure</summary>{grid(drawn.headings, drawn.rows)}</details>"
    return f'<figure class="block"><h3>{escape(drawn.title)}</h3>\n{markup}\n{caption}{numbers}</figure>'


def table(shown: Table) -> str:
    """A table that answers a question, with its caption."""
    return grid(shown.headings, shown.rows, shown.words) + note(shown.caption)


# -- samples -----------------------------------------------------------------------------------------------------------


def sample_groups(members: Sequence[TrialRecord]) -> list[tuple[str, list[tuple[str, str]]]]:
    """For each prompt who answered what: the reference if any, the base once a precision, each member of the front."""
    prompts = list(dict.fromkeys(str(sample.get("prompt")) for record in members for sample in record.samples))
    return [(prompt, _answers(prompt, members)) for prompt in prompts]


def _answers(prompt: str, members: Sequence[TrialRecord]) -> list[tuple[str, str]]:
    references: dict[str, str] = {}
    bases: dict[str, str] = {}
    tuned: list[tuple[str, str]] = []
    for record in members:
        for sample in record.samples:
            if str(sample.get("prompt")) == prompt:
                base, who = f"{BASE}{record.config.precision}", f"{record.trial_id}: {configuration_name(record)}"
                bases.setdefault(base + _of_reference(sample, "base"), str(sample.get("base") or ""))
                tuned.append((who + _of_reference(sample, "tuned"), str(sample.get("tuned") or "")))
                if sample.get("reference"):
                    references[REFERENCE] = str(sample["reference"])
    return [*references.items(), *bases.items(), *tuned]


def _of_reference(sample: Mapping[str, Any], who: str) -> str:
    """How likely the reference answer is to a model, where it was asked a held-out question."""
    value = sample.get(f"{who}_perplexity")
    return "" if not isinstance(value, int | float) else f" · the reference’s perplexity {format_number(value)}"


def samples(members: Sequence[TrialRecord]) -> str:
    """The base model's and the tuned models' answers side by side, one fold for each prompt."""
    groups = sample_groups(members)
    if not groups:
        return note("No samples: the study has no generation.prompts, or no trial is complete.")
    return "\n".join(_fold(prompt, answers, is_open=i == 0) for i, (prompt, answers) in enumerate(groups))


def _fold(prompt: str, answers: Sequence[tuple[str, str]], is_open: bool) -> str:
    cards = "".join(_card(who, text) for who, text in answers)
    head = f'<summary dir="auto">{escape(prompt)}</summary>'
    return f'<details class="prompt"{" open" * is_open}>{head}<div class="answers">{cards}</div></details>'


def _card(who: str, text: str) -> str:
    kind = "answer base" if who.startswith((BASE, REFERENCE)) else "answer"
    shown = escape(shorten(text, ANSWER_SHOWN)) or "<i>(nothing)</i>"
    return f'<figure class="{kind}"><figcaption>{escape(who)}</figcaption><p dir="auto">{shown}</p></figure>'


# -- provenance --------------------------------------------------------------------------------------------------------


def provenance(study: Study) -> str:
    """Where the numbers come from: model, devices, data, seeds, versions, and the study file itself."""
    parts = [definitions(_origins(study)), _lengths(study)]
    if study.provenance:
        parts.append(
            f"<details><summary>Versions and hardware</summary>{definitions(study.provenance.items())}</details>"
        )
    settings = yaml.safe_dump(dict(study.settings), sort_keys=False, allow_unicode=True, width=100)
    parts.append(f"<details><summary>The study file, resolved</summary><pre>{escape(settings)}</pre></details>")
    return "\n".join(part for part in parts if part)


def _origins(study: Study) -> list[tuple[str, Any]]:
    model = _distinct(
        study, lambda record: " ".join(str(v) for k, v in record.base_model.items() if v and k != "sha256")
    )
    return [
        ("base model", model),
        ("base model’s SHA-256", _distinct(study, lambda record: record.base_model.get("sha256"))),
        ("device", _distinct(study, lambda record: record.device.get("name"))),
        ("compute type", _distinct(study, _compute_type)),
        ("memory measured as", _distinct(study, lambda record: record.device.get("memory_source"))),
        ("dataset fingerprint", _distinct(study, lambda record: record.dataset.get("fingerprint"))),
        ("time and price", cost_words(study.cost)),
        ("seeds of trials", _distinct(study, lambda record: record.config.seed)),
        ("seed of the data", (study.settings.get("dataset") or {}).get("seed")),
    ]


def cost_words(cost: Mapping[str, Any]) -> list[str]:
    """What the study's cards have cost so far; nothing where it held none, or its file is not whole."""
    try:
        held = f"{format_duration(float(cost['seconds']))} on {int(cost['cards'])} x {cost['card']}"
        text = f"{held}: {float(cost['gpu_hours']):.2f} GPU-hours"
        if cost.get("price_usd") is None:
            return [text]
        source = f" ({cost['price_source']})" if cost.get("price_source") else ""
        rate = f"{float(cost['price_per_hour']):.3f} USD an hour and card{source}"
        return [f"{text}, {float(cost['price_usd']):.2f} USD at {rate}"]
    except (KeyError, TypeError, ValueError):
        return []


def _compute_type(record: TrialRecord) -> str | None:
    dtype = record.device.get("compute_dtype")
    return f"{dtype} ({record.config.precision})" if dtype else None


def _distinct(study: Study, value: Any) -> list[str]:
    return list(dict.fromkeys(str(v) for v in map(value, study.records) if v not in (None, "")))


def _lengths(study: Study) -> str:
    """The splits' sizes and lengths in tokens."""
    statistics = next(
        (record.dataset["statistics"] for record in study.records if record.dataset.get("statistics")), None
    )
    if not statistics:
        return ""
    there = [(key, heading) for key, heading in LENGTHS if any(key in split for split in statistics.values())]
    rows = [
        [name, *(DASH if split.get(key) is None else format_number(split[key]) for key, _ in there)]
        for name, split in statistics.items()
    ]
    return "<h3>Data, lengths in tokens</h3>" + grid(["split", *(heading for _, heading in there)], rows)
