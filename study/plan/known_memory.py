"""Predicts peak memory for the Bayesian search, before any trial has run."""

from __future__ import annotations

from dataclasses import replace

import psutil

from search_spaces.footprint import Footprint
from search_spaces.trial_config import TrialConfig
from study.config.study_config import StudyConfig
from study.hardware.gpu_catalogue import find_gpu
from study.hardware.machine import find_cards
from study.hardware.targets import Target, cpu_target, gpu_target, smallest_here
from study.plan.fitting import fit
from study.plan.workload import Workload
from trainables.protocol import ENGINE_VERSION


class KnownMemory:
    """Predicts a configuration's peak in bytes; model and data are looked at when it is first asked.

    Tune pickles the search, and this with it.
    """

    def __init__(self, config: StudyConfig) -> None:
        self._config = config
        self._facts: tuple[Workload, Target] | None = None
        self._found: dict[Footprint, float] = {}

    def __call__(self, trial: TrialConfig) -> float:
        """The predicted peak; each footprint is computed once."""
        key = Footprint.of(trial)
        if key not in self._found:
            if self._facts is None:
                self._facts = _workload(self._config), _target(self._config.trial.hardware.gpu)
            self._found[key] = float(fit(trial, *self._facts).peak_memory_bytes)
        return self._found[key]


def _workload(config: StudyConfig) -> Workload:
    # Here and not above: the readers of models and data, which other searches do not need.
    from trainables.base_model.files import inspect
    from trainables.base_model.tokenizer import load_tokenizer
    from trainables.dataset.prepared import prepare_dataset

    trial = config.trial
    shape = inspect(trial.base_model).shape
    statistics = prepare_dataset(trial.dataset, load_tokenizer(trial.base_model), answers=False).statistics
    found = Workload.of(shape, trial.training, statistics, trial.base_model.double_quantization)
    return replace(found, base_in_host_memory=trial.hardware.base_in_host_memory)


def _target(gpu: str) -> Target:
    """One such card, or the smallest of this machine, or its processor."""
    if gpu not in ("auto", "cpu"):
        return gpu_target(find_gpu(gpu), 1, ENGINE_VERSION)
    here = smallest_here(find_cards().cards) if gpu == "auto" else None
    if here is not None:
        return gpu_target(here[0], 1, ENGINE_VERSION)
    return cpu_target(psutil.virtual_memory().total, ENGINE_VERSION)
