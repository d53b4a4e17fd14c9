"""The rules that a record's values keep: types, ranges, finiteness, sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from study.json_checks import Check, either, fields, flag, items, number, one_of, optional, text
from study.records.units import HIGHEST_BYTES

Status = Literal["complete", "stopped", "infeasible", "diverged", "failed"]
STATUSES: tuple[str, ...] = get_args(Status)
SCHEMA_VERSION = 1
SHORT, LONG = 200, 4096  # characters of a name, and of a path

BYTES = optional(number(0, HIGHEST_BYTES, whole=True))
COUNT = optional(number(0, 2**63, whole=True))
POSITIVE = optional(number(0))
SHARE = optional(number(0, 1))
NUMBER = optional(number())
NAME = optional(text(SHORT))
PLACE = optional(text(LONG))
PLAIN = either(optional(text(LONG)), number())

MEASURED: dict[str, Check] = {
    **dict.fromkeys(("perplexity", "base_perplexity", "test_perplexity"), POSITIVE),
    **dict.fromkeys(("accuracy", "base_accuracy", "test_accuracy"), SHARE),
    "eval_nats": NUMBER,
    **dict.fromkeys(("peak_memory_bytes", "peak_reserved_bytes", "peak_device_bytes", "pack_peak_memory_bytes"), BYTES),
    **dict.fromkeys(("eval_tokens", "trainable_parameters", "train_steps", "train_tokens", "restarts"), COUNT),
    "mean_pack_size": POSITIVE,
    **dict.fromkeys(("train_tokens_per_second", "generated_tokens_per_second"), POSITIVE),
    "base_generated_tokens_per_second": POSITIVE,
    **dict.fromkeys(("seconds_per_epoch", "train_seconds", "wall_seconds"), POSITIVE),
    "energy_joules": NUMBER,
}
LENGTH_NAMES = (
    "rows", "dropped", "truncated", "tokens", "target_tokens", "min_length", "median_length", "p95_length",
    "max_length",
)  # fmt: skip

_CURVE = items(
    fields({"step": number(0, 2**63, whole=True), "perplexity": POSITIVE, "train_loss": NUMBER}, ("step",), NUMBER)
)
_SAMPLES = items(
    fields(
        {
            "prompt": text(),
            **dict.fromkeys(("base", "tuned", "reference"), optional(text())),
            **dict.fromkeys(("base_perplexity", "tuned_perplexity"), NUMBER),
        },
        ("prompt",),
    )
)
_INFEASIBLE = fields(
    {
        **dict.fromkeys(("moment", "phase", "source"), NAME),
        # Where a base model alone is too large, less than nothing is available.
        **dict.fromkeys(("requested_bytes", "available_bytes"), NUMBER),
        "components": optional(fields({}, others=NUMBER)),
    }
)
_ORIGIN = fields({"directory": text(LONG), "measured_at": text(SHORT)}, ("directory", "measured_at"))
_OFFLOAD = fields(
    {
        "layers": number(0, 2**31, whole=True),
        **dict.fromkeys(("embedding", "optimizer_state", "layer_inputs"), flag()),
    }
)
_DEVICE = fields(
    {
        **dict.fromkeys(("name", "compute_dtype", "memory_source"), NAME),
        "cost_taken_over_from": optional(_ORIGIN),
        "offload": optional(_OFFLOAD),
        "streamed_bytes": BYTES,
    }
)
_STATISTICS = fields({}, others=fields(dict.fromkeys(LENGTH_NAMES, POSITIVE)))
_RECORD = fields(
    {
        "schema_version": number(0, 2**31, whole=True),
        "study": text(LONG),
        "trial_id": text(SHORT, empty=False),
        "status": one_of(STATUSES),
        "config": fields({}),
        **dict.fromkeys(("reason", "error"), optional(text())),
        "measurements": optional(fields(MEASURED, others=NUMBER)),
        "predictions": optional(fields({"peak_memory_bytes": BYTES}, others=NUMBER)),
        "curve": optional(_CURVE),
        "samples": optional(_SAMPLES),
        **dict.fromkeys(("eval_rows", "test_rows"), optional(lambda value, key: _rows(value, key))),
        "infeasible": optional(_INFEASIBLE),
        "adapter": PLACE,
        "base_model": optional(fields({}, others=PLAIN)),
        "device": optional(_DEVICE),
        "dataset": optional(fields({"fingerprint": NAME, "statistics": optional(_STATISTICS)})),
        "comparable": optional(fields({}, others=NAME)),
    },
    ("study", "trial_id", "status", "config"),
)


def broken_rule(values: Any) -> str:
    """Returns the first rule that a record's JSON breaks, with key and value; empty where none is.

    The configuration's own values are not looked at: `TrialConfig` has their rules.
    """
    if isinstance(values, Mapping) and is_later(values.get("schema_version")):
        return (
            f"schema_version is {values['schema_version']}; at most {SCHEMA_VERSION} can be read. Update LoRA Frontier"
        )
    return _RECORD(values, "")


def is_later(schema_version: Any) -> bool:
    """Whether a later version of LoRA Frontier wrote it, which this one cannot judge."""
    return type(schema_version) is int and SCHEMA_VERSION < schema_version < 2**31


def _rows(value: Any, key: str) -> str:
    """Nats and target tokens of each row: two lists of equal length, or nothing at all."""
    if value == {}:
        return ""
    if wrong := _ROWS(value, key):
        return wrong
    nats, tokens = len(value["nats"]), len(value["tokens"])
    return "" if nats == tokens > 0 else f"{key} must hold as many nats as tokens; it has {nats} and {tokens}"


_ROWS = fields({"nats": items(number()), "tokens": items(number(1, 2**53, whole=True))}, ("nats", "tokens"))
