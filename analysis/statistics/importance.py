"""Which sampled parameter matters for which objective, by Optuna's PED-ANOVA."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from study.records.objectives import Objective, objective_values
from study.records.record import TrialRecord

ENOUGH_TRIALS = 24  # below, the good ones are so few that an importance would be chance
TARGET_QUANTILE = 0.25  # of trials that count as good, since studies are small


def parameter_importance(
    records: Sequence[TrialRecord], objectives: Sequence[Objective]
) -> dict[str, dict[str, float]]:
    """Each varied parameter's share (they sum to 1) in what sets good trials apart, by objective, most important first.

    PED-ANOVA (Watanabe et al. 2023, arXiv 2304.10255) on an Optuna study rebuilt from the complete trials. Parameters
    that do not vary are left out, `lora_alpha` also where it follows from the rank. Empty for fewer than
    `ENOUGH_TRIALS` complete trials, and for an objective that does not vary.
    """
    complete = [one for one in records if one.status == "complete" and objective_values(one.measurements, objectives)]
    parameters = {name: read for name, read in _READERS.items() if len({read(one) for one in complete}) > 1}
    if len({one.config.scaling for one in complete}) == 1:
        parameters.pop("lora_alpha", None)
    if len(complete) < ENOUGH_TRIALS or not parameters:
        return {}
    study = _optuna_study(complete, parameters, objectives)
    return {one.metric: shares for place, one in enumerate(objectives) if (shares := _shares(study, place))}


def _shares(study: Any, place: int) -> dict[str, float]:
    import optuna

    if len({trial.values[place] for trial in study.get_trials(deepcopy=False)}) == 1:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=TARGET_QUANTILE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # low targets are the better ones: all are to be minimized
        found = optuna.importance.get_param_importances(
            study, evaluator=evaluator, target=lambda one: one.values[place]
        )
    return {name: float(share) for name, share in sorted(found.items(), key=lambda item: (-item[1], item[0]))}


def _optuna_study(
    records: Sequence[TrialRecord],
    parameters: dict[str, Callable[[TrialRecord], Any]],
    objectives: Sequence[Objective],
) -> Any:
    """The records as Optuna's trials, all objectives to be minimized."""
    import optuna

    distributions = {name: _distribution([read(one) for one in records]) for name, read in parameters.items()}
    said = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it tells of each study that it makes, also of this aid
    study = optuna.create_study(
        storage=optuna.storages.InMemoryStorage(),
        sampler=optuna.samplers.RandomSampler(seed=0),
        directions=["minimize"] * len(objectives),
    )
    optuna.logging.set_verbosity(said)
    for record in records:
        params = {name: read(record) for name, read in parameters.items()}
        values = [one.to_minimize(float(record.measurements[one.metric])) for one in objectives]
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, values=values))
    return study


def _distribution(values: Sequence[Any]) -> Any:
    """What a parameter's values were drawn from, as far as they show: a log range for wide ones."""
    import optuna

    if any(isinstance(value, str) for value in values):
        return optuna.distributions.CategoricalDistribution(sorted(set(values)))
    low, high = min(values), max(values)
    log = low > 0 and math.log(high / low) > math.log(8)
    if all(isinstance(value, int) for value in values):
        return optuna.distributions.IntDistribution(low, high, log=log)
    return optuna.distributions.FloatDistribution(low, high, log=log)


_READERS: dict[str, Callable[[TrialRecord], Any]] = {
    "precision": lambda record: record.config.precision,
    "rank": lambda record: record.config.rank,
    "target_modules": lambda record: record.config.module_set,
    "layers": lambda record: record.config.layer_range,
    "lora_alpha": lambda record: float(record.config.lora_alpha),
    "lora_dropout": lambda record: float(record.config.lora_dropout),
    "learning_rate": lambda record: record.config.learning_rate,
}
