"""The record of one ended trial, and its forms as a line of JSON and as a flat row of a table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from search_spaces.trial_config import TrialConfig
from study.errors import printable
from study.records.rules import SCHEMA_VERSION, STATUSES, Status, broken_rule
from trainables.guarded_files import parse_json
from trainables.memory.offload import Offload

__all__ = [
    "COMPARABLE",
    "INFEASIBLE",
    "MEASUREMENTS",
    "SCHEMA_VERSION",
    "STATUSES",
    "Status",
    "TrialRecord",
    "flat_row",
]

LISTS = ("curve", "samples")
OBJECTS = ("measurements", "predictions", "base_model", "device", "dataset", "comparable")
REASON_CHARACTERS = 300

MEASUREMENTS: tuple[str, ...] = (
    "perplexity", "eval_nats", "eval_tokens", "accuracy", "base_perplexity", "base_accuracy",
    "test_perplexity", "test_accuracy", "peak_memory_bytes", "peak_reserved_bytes", "peak_device_bytes",
    "pack_peak_memory_bytes", "mean_pack_size", "train_tokens_per_second", "seconds_per_epoch",
    "generated_tokens_per_second", "base_generated_tokens_per_second", "energy_joules", "trainable_parameters",
    "train_steps", "train_tokens", "train_seconds", "wall_seconds", "restarts",
)  # fmt: skip

INFEASIBLE = ("moment", "requested_bytes", "available_bytes", "source")
COMPARABLE = ("quality", "cost")
DEVICE = ("compute_dtype", "memory_source")


@dataclass(frozen=True)
class TrialRecord:
    """Everything kept of one trial; a missing number is None, never 0 and never a sentinel."""

    study: str
    trial_id: str
    status: Status
    config: TrialConfig
    reason: str | None = None
    measurements: Mapping[str, Any] = field(default_factory=dict)  # keys: MEASUREMENTS
    predictions: Mapping[str, Any] = field(default_factory=dict)
    curve: tuple[Mapping[str, Any], ...] = ()  # step, train_loss, perplexity, learning_rate
    samples: tuple[Mapping[str, Any], ...] = ()  # prompt, base, tuned
    eval_rows: Mapping[str, Any] | None = None  # nats and tokens of each evaluation row, for bootstraps
    test_rows: Mapping[str, Any] | None = None  # of each row of the test split
    infeasible: Mapping[str, Any] | None = None  # moment, requested_bytes, available_bytes, source
    error: str | None = None
    adapter: str | None = None  # folder, relative to the study directory
    base_model: Mapping[str, Any] = field(default_factory=dict)  # path, revision, sha256
    # name, compute_dtype, memory_source; where there is something to say: cost_taken_over_from, offload, streamed_bytes
    device: Mapping[str, Any] = field(default_factory=dict)
    dataset: Mapping[str, Any] = field(default_factory=dict)  # fingerprint, splits' length statistics
    comparable: Mapping[str, Any] = field(default_factory=dict)  # quality, cost: hashes
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status must be one of {', '.join(STATUSES)}; it is {self.status!r}")
        missing = {name: None for name in MEASUREMENTS if name not in self.measurements}
        object.__setattr__(self, "measurements", {**self.measurements, **missing})

    @property
    def offload(self) -> Offload:
        """What of the training waited in host memory; nothing where the record does not say."""
        known = self.device.get("offload") or {}
        return Offload(**{one.name: known[one.name] for one in fields(Offload) if one.name in known})

    def to_json(self) -> str:
        """Returns one line of JSON. Raises ValueError for NaN and infinity."""
        values = {**asdict(self), "config": self.config.to_dict()}
        return json.dumps(values, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, line: str | bytes) -> TrialRecord:
        """Reads `to_json`'s form, earlier versions' too; keys of later versions are left out.

        Raises ValueError with the first rule that is broken: of JSON, of `study.records.rules`, of the configuration.
        """
        return cls.from_values(parse_json(line))

    @classmethod
    def from_values(cls, values: Any) -> TrialRecord:
        """Reads a line's JSON; raises ValueError as `from_json` does."""
        if wrong := broken_rule(values):
            raise ValueError(wrong)
        known = {one.name: values[one.name] for one in fields(cls) if one.name in values}
        known["config"] = _config(values["config"])
        known |= {name: tuple(known.get(name) or ()) for name in LISTS}
        known |= {name: known.get(name) or {} for name in OBJECTS}
        known["infeasible"] = _infeasible(known.get("infeasible"))
        return cls(**known)


def _config(values: Mapping[str, Any]) -> TrialConfig:
    try:
        return TrialConfig.from_dict(values)
    except KeyError as error:
        raise ValueError(f"config.{error.args[0]} is missing") from None
    except (TypeError, ValueError) as error:  # TypeError: a key too many, or modules that are no list of texts
        raise ValueError(f"config: {printable(str(error), REASON_CHARACTERS)}") from None


def _infeasible(values: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The facts under today's names: earlier versions wrote the `moment` as `phase`."""
    if not values or "phase" not in values or "moment" in values:
        return values
    return {"moment" if name == "phase" else name: value for name, value in values.items()}


def flat_row(record: TrialRecord) -> dict[str, Any]:
    """The record without curve, samples and evaluation rows; missing values are None.

    Measurements keep their names and predictions become `predicted_...`, so that the two never share a column; target
    modules are their set's name, and layers a text (`all`, `16-31`).
    """
    infeasible = record.infeasible or {}
    return {
        **{name: getattr(record, name) for name in ("study", "trial_id", "status", "reason", "error", "adapter")},
        **record.config.to_dict(),
        "target_modules": record.config.module_set,
        "layers": record.config.layer_range,
        **{name: record.measurements[name] for name in MEASUREMENTS},
        **{f"predicted_{name}": value for name, value in record.predictions.items()},
        **{f"infeasible_{name}": infeasible.get(name) for name in INFEASIBLE},
        "device": record.device.get("name"),
        **{name: record.device.get(name) for name in DEVICE},
        "in_host_memory": record.offload.words or None,
        **{f"comparable_{name}": record.comparable.get(name) for name in COMPARABLE},
    }
