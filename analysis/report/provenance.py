"""Where the numbers come from: model, devices, data, seeds, versions, price, and the study file itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import yaml
from markupsafe import Markup

from analysis.load import Study
from analysis.report.rendering import render
from analysis.tables.table import Table
from analysis.wording import DASH, format_duration, format_number
from study.records.data_notes import data_notes
from study.records.record import TrialRecord
from study.secrets import masked_value

LENGTHS = (
    ("rows", "rows"), ("left_out", "left out"), ("dropped", "dropped"), ("truncated", "truncated"),
    ("tokens", "tokens"), ("target_tokens", "target tokens"), ("min_length", "shortest"), ("median_length", "median"),
    ("p95_length", "95th percentile"), ("max_length", "longest"),
)  # fmt: skip


def provenance(study: Study) -> Markup:
    """All of it, the longer parts folded."""
    return render(
        "provenance.html",
        origins=_origins(study),
        lengths=_lengths(study),
        provenance=masked_value("", study.provenance),
        settings=yaml.safe_dump(masked_value("", study.settings), sort_keys=False, allow_unicode=True, width=100),
    )


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
        ("waited in host memory", _distinct(study, lambda record: record.offload.words or None)),
        ("memory and speed taken over from", _distinct(study, _taken_over_from)),
        ("dataset fingerprint", _distinct(study, lambda record: record.dataset.get("fingerprint"))),
        ("time and price", cost_words(study.cost)),
        ("seeds of trials", _distinct(study, lambda record: record.config.seed)),
        ("seed of the data", (study.settings.get("dataset") or {}).get("seed")),
    ]


def _taken_over_from(record: TrialRecord) -> str | None:
    """The earlier study that measured a trial's cost, and when; None where its own study did."""
    origin = record.device.get("cost_taken_over_from")
    return f"{origin['directory']} ({origin['measured_at']})" if origin else None


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
    except (KeyError, OverflowError, TypeError, ValueError):
        return []


def _compute_type(record: TrialRecord) -> str | None:
    dtype = record.device.get("compute_dtype")
    return f"{dtype} ({record.config.precision})" if dtype else None


def _distinct(study: Study, value: Callable[[TrialRecord], Any]) -> list[str]:
    return list(dict.fromkeys(str(v) for v in map(value, study.records) if v not in (None, "")))


def _lengths(study: Study) -> Table | None:
    """The splits' sizes and lengths in tokens."""
    statistics = next(
        (record.dataset["statistics"] for record in study.records if record.dataset.get("statistics")), None
    )
    if not statistics:
        return None
    there = [(key, heading) for key, heading in LENGTHS if any(key in split for split in statistics.values())]
    rows = tuple(
        (name, *(DASH if split.get(key) is None else format_number(split[key]) for key, _ in there))
        for name, split in statistics.items()
    )
    headings = ("split", *(heading for _, heading in there))
    return Table("lengths", "Data, lengths in tokens", " ".join(data_notes(statistics)), headings, rows)
