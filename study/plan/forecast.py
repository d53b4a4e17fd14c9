"""Predicts a study's fits before it runs, and remembers what ran out of memory on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from search_spaces.footprint import Footprint
from search_spaces.trial_config import TrialConfig
from study.config.study_config import SearchSettings, StudyConfig
from study.hardware.targets import Target, target_of_cluster
from study.plan.fitting import Fit, fit, fit_with
from study.plan.preflight import Preflight
from study.plan.workload import Workload
from study.records.record import TrialRecord
from trainables.gauges import PredictedMemory
from trainables.memory.offload import RESIDENT, Offload

if TYPE_CHECKING:
    from study.search.algorithms import Sampling

CARD_KIND = "accelerator_type:"  # Ray's resource that names a node's cards
MOST_DRAWN = 12  # configurations of a precision that stand for a search's


@dataclass(frozen=True)
class Forecast:
    """The memory model's word on a study's configurations, each footprint computed once; and what was observed."""

    workload: Workload
    target: Target
    _fits: dict[tuple[Footprint, int | None, Offload | None], Fit] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _settled: dict[Footprint | str, Offload] = field(default_factory=dict, init=False, repr=False, compare=False)
    _ran_out: dict[Footprint, TrialRecord] = field(default_factory=dict, init=False, repr=False, compare=False)

    def fit(self, config: TrialConfig, cards: int | None = None) -> Fit:
        """Whether and how the configuration fits; its base model over at most so many `cards`, if that is given.

        With the offload of the phase that it runs in, where phases have been made.
        """
        key = Footprint.of(config)
        return self.fit_with(config, self._settled.get(key, self._settled.get(config.precision)), cards)

    def fit_with(self, config: TrialConfig, offload: Offload | None, cards: int | None = None) -> Fit:
        """The same with this offload; None: with the mildest with which the configuration fits alone."""
        key = (Footprint.of(config), cards, offload)
        if key not in self._fits:
            target = self.target_of(cards)
            found = fit(config, self.workload, target) if offload is None else None
            self._fits[key] = found or fit_with(config, self.workload, target, offload or RESIDENT)
        return self._fits[key]

    def settle(self, offload: Offload, of: Iterable[Footprint | str]) -> None:
        """These footprints, or all of a precision, train with this offload from now on: their phase has it."""
        self._settled.update(dict.fromkeys(of, offload))

    def target_of(self, cards: int | None) -> Target:
        """The target, of which a base model may have at most so many cards (None: as many as one machine has)."""
        return self.target if cards is None else replace(self.target, per_node=min(self.target.per_node, cards))

    def largest_bytes(self, precision: str) -> int:
        """The most that a configuration of that precision takes, of those that have been looked at."""
        return max(
            (one.largest.needed_bytes for one in self._fits.values() if one.config.precision == precision), default=0
        )

    def memory(self, config: TrialConfig) -> PredictedMemory:
        """What the configuration adds to a card, and what is there without it."""
        one = self.fit(config)
        return PredictedMemory(one.adapter_bytes, one.base_bytes)

    def note(self, record: TrialRecord) -> None:
        """A trial has ended: where it ran out of memory alone, those of its footprint would too."""
        if record.status == "infeasible" and (record.infeasible or {}).get("source") == "observed":
            self._ran_out[Footprint.of(record.config)] = record

    def ran_out(self, config: TrialConfig) -> TrialRecord | None:
        """A trial of the same footprint that ran out of memory alone."""
        return self._ran_out.get(Footprint.of(config))

    def predictions(self, config: TrialConfig) -> dict[str, Any]:
        """A record's predictions, JSON-ready."""
        return {"peak_memory_bytes": self.fit(config).peak_memory_bytes}


def workload_of(config: StudyConfig, found: Preflight) -> Workload | None:
    """What the study's trials share; None where the model's shape is not known."""
    if found.shape is None:
        return None
    trial = config.trial
    return Workload.of(
        found.shape,
        trial.training,
        found.statistics,
        trial.base_model.double_quantization,
        trial.hardware.force_bf16,
        trial.hardware.base_in_host_memory,
    )


def forecast_on(
    config: StudyConfig,
    found: Preflight | None,
    node_resources: Sequence[Mapping[str, float]],
    use_gpu: bool,
    local: bool,
) -> Forecast | None:
    """The forecast for a Ray cluster (of this machine alone: `local`), by what its nodes offer.

    None where model or cards are not known.
    """
    workload = workload_of(config, found) if found else None
    kinds = {name.removeprefix(CARD_KIND) for node in node_resources for name in node if name.startswith(CARD_KIND)}
    gpus = [node.get("GPU", 0.0) for node in node_resources]
    target = target_of_cluster(config.trial.hardware, gpus, kinds, use_gpu, local)
    return Forecast(workload, target) if workload and target else None


def likely_configurations(config: StudyConfig, counts: Mapping[str, int]) -> list[TrialConfig]:
    """A grid's configurations; for a search as many as each precision has trials, of up to `MOST_DRAWN` draws."""
    if config.search.algorithm == "grid":
        return config.space.grid(config.seeds)
    from study.search.algorithms import Sampling  # not above: a grid needs no Optuna

    settings = SearchSettings("random", sum(counts.values()), config.search.seed)
    sampling = Sampling(config.space, settings, config.seeds[0], ("minimize",))
    configs: list[TrialConfig] = []
    for precision, count in counts.items():
        drawn = _drawn(sampling, precision, min(count, MOST_DRAWN))
        configs += [drawn[number % len(drawn)] for number in range(count if drawn else 0)]
    return configs


def _drawn(sampling: Sampling, precision: str, count: int) -> list[TrialConfig]:
    drawn: list[TrialConfig] = []
    for number in range(count):
        proposed = sampling.propose(precision, number, [], drawn)
        if proposed is not None:
            drawn.append(proposed[1])
    return drawn
