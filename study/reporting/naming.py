"""Names configurations in short, so that no two of a study read alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from analysis.wording import DASH, configuration_name, format_rate
from search_spaces.trial_config import TrialConfig
from study.records.record import TrialRecord

_EXTRAS: tuple[Callable[[TrialConfig], str], ...] = (
    lambda config: f"alpha {config.lora_alpha:g}",
    lambda config: f"dropout {config.lora_dropout:g}",
    lambda config: f"seed {config.seed}",
)


def configuration_names(records: Sequence[TrialRecord]) -> Mapping[str, str]:
    """Each trial's configuration in short, by trial id; with alpha, dropout or seed where only that tells two apart."""
    names = told_apart([configuration_name(record) for record in records], [record.config for record in records])
    return {record.trial_id: name for record, name in zip(records, names, strict=True)}


def told_apart(names: Sequence[str], configs: Sequence[TrialConfig]) -> list[str]:
    """The names of these configurations, with alpha, dropout or seed where only that tells two apart."""
    told = list(names)
    for extra in _EXTRAS:
        alike: dict[str, set[str]] = {}
        for name, config in zip(told, configs, strict=True):
            alike.setdefault(name, set()).add(extra(config))
        told = [
            f"{name}, {extra(config)}" if len(alike[name]) > 1 else name
            for name, config in zip(told, configs, strict=True)
        ]
    return told


def short_name(config: TrialConfig | None) -> str:
    """A configuration for a narrow column: `nf4 r8 q_v 2e-4`."""
    if config is None:
        return DASH
    return f"{config.precision} r{config.rank} {config.target_set} {format_rate(config.learning_rate)}"
