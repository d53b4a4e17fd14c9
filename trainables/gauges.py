"""Defines the gauges of a study's charts, and computes their values from what hosts say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from trainables.protocol import ResidentStatus

PREFIX = "lora_frontier_"  # Ray puts `ray_` before it


@dataclass(frozen=True)
class GaugeKind:
    """A gauge: its name ends with its unit where it has one, as Prometheus wants it."""

    name: str
    text: str
    tags: tuple[str, ...]

    @property
    def full_name(self) -> str:
        """As it is given to Ray."""
        return f"{PREFIX}{self.name}"


@dataclass(frozen=True)
class Sample:
    """One value of a gauge now."""

    name: str
    value: float
    tags: Mapping[str, str] = field(default_factory=dict)


TRIAL, HOST, STUDY = ("study", "trial"), ("study", "host"), ("study",)
GAUGES = (
    GaugeKind("trial_step", "Optimizer steps that a trial has done", TRIAL),
    GaugeKind("trial_loss_nats", "Mean training loss per target token since the last evaluation", TRIAL),
    GaugeKind("trial_perplexity", "Perplexity of the evaluation split, last measured", TRIAL),
    GaugeKind("host_adapters", "Adapters resident on a host and at work", HOST),
    GaugeKind("host_tokens_per_second", "Training tokens of all adapters on a host, from their last steps", HOST),
    GaugeKind("host_busy_ratio", "Part of its time that a host has not waited, since its first step", HOST),
    GaugeKind("host_memory_allocated_bytes", "Memory that torch holds on a host's card", HOST),
    GaugeKind("host_memory_predicted_bytes", "Peak that is predicted of a base with the adapters at work on it", HOST),
    GaugeKind("host_power_watts", "What a host's card draws", HOST),
    GaugeKind("study_trials", "Trials that have ended, by how", (*STUDY, "status")),
    GaugeKind("study_hypervolume", "What the front covers, in the objectives' units", STUDY),
)


@dataclass(frozen=True)
class PredictedMemory:
    """Predicted bytes of a trial: those that it adds to its host, and those of the base model under it."""

    adapter_bytes: int
    base_bytes: int


def predicted_host_bytes(
    statuses: Iterable[ResidentStatus], predicted: Mapping[str, PredictedMemory]
) -> dict[str, float]:
    """The predicted peak of a host with the trials at work on it, for `host_samples`.

    Empty where no trial is at work, or one of them has no prediction.
    """
    at_work = [predicted.get(status.trial_id) for status in statuses if status.stage != "ended"]
    known = [one for one in at_work if one is not None]
    if not known or len(known) < len(at_work):
        return {}
    total = max(one.base_bytes for one in known) + sum(one.adapter_bytes for one in known)
    return {"memory_predicted_bytes": float(total)}


def trial_samples(statuses: Iterable[ResidentStatus]) -> list[Sample]:
    """Step, loss and perplexity of each trial at work, where known."""
    found = []
    for status in statuses:
        tags = {"trial": status.trial_id}
        values = {"step": status.step, "loss_nats": status.train_loss, "perplexity": status.perplexity}
        found += [Sample(f"trial_{name}", float(value), tags) for name, value in values.items() if value is not None]
    return found


def host_samples(
    host: str, statuses: Sequence[ResidentStatus], seconds: Mapping[str, float], device: Mapping[str, float]
) -> list[Sample]:
    """The values of a host: `seconds` as `HostClock.seconds` and `device` as `device_values` return them."""
    at_work = [status for status in statuses if status.stage != "ended"]
    values: dict[str, float] = {
        "adapters": len(at_work),
        "tokens_per_second": sum(status.tokens_per_second or 0.0 for status in at_work),
        **device,
    }
    if seconds.get("all"):
        values["busy_ratio"] = 1 - seconds.get("waiting", 0.0) / seconds["all"]
    return [Sample(f"host_{name}", float(value), {"host": host}) for name, value in values.items()]


def study_samples(statuses: Iterable[str], hypervolume: float | None) -> list[Sample]:
    """The values of a study: how many trials ended by status, and the front's hypervolume."""
    found = [Sample("study_trials", count, {"status": status}) for status, count in Counter(statuses).items()]
    return found if hypervolume is None else [*found, Sample("study_hypervolume", hypervolume)]
