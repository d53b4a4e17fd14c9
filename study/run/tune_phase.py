"""Runs one phase of a study with Ray Tune: its searcher, scheduler and callbacks, and each trial's config."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from ray import tune

from study.plan.forecast import Forecast
from study.plan.phases import StudyPhase
from study.plan.shares import Phase
from study.records.layout import TUNE_FOLDER
from study.run.admission import Admission
from study.run.loggers import tune_loggers
from study.run.record_keeping import Keeping
from study.run.recorder import Recorder, Start
from study.run.study_run import StudyRun
from study.run.tune_scheduler import EarlyStopping, early_stopping
from study.run.tune_searcher import TuneSearcher, identity
from study.search.study_search import Proposal, StudySearch
from trainables.actors.host_keeper import KEEPER_NAME
from trainables.actors.lora_trial import LoraTrial

MAX_TRIAL_RESTARTS = 3
KEPT_CHECKPOINTS = 2  # of a trial: the newest may be torn by a kill


def run_phase(study: StudyRun, own: StudyPhase, start: Start, keeping: Keeping) -> None:
    """Runs a phase's trials until all have ended; `start` is told when one begins, `keeping` gets their records.

    Raises StoreError where a record cannot be kept; the trials that have not ended are then stopped.
    """
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(own.phase.places)  # trial actors start side by side
    scheduler = early_stopping(study.config.early_stopping, study.store.records())
    tune_config = tune.TuneConfig(
        search_alg=_searcher(study, own, keeping, scheduler),
        scheduler=scheduler,
        num_samples=-1,
        reuse_actors=True,
        trial_name_creator=_trial_id,
        trial_dirname_creator=_trial_id,
    )
    tune.Tuner(LoraTrial, tune_config=tune_config, run_config=_run_config(study, own, start, keeping, scheduler)).fit()
    keeping.raise_any()


def _trial_id(trial: Any) -> str:
    name: str = trial.config["trial_id"]
    return name


def _searcher(study: StudyRun, own: StudyPhase, keeping: Keeping, scheduler: EarlyStopping) -> TuneSearcher:
    """The study's search, without what is predicted not to fit; trials that an earlier driver began come first."""
    phase, forecast = own.phase, keeping.forecast
    search: StudySearch | Admission = study.search
    unfinished = [one for one in study.search.unfinished() if own.holds(one.config)]
    if forecast:
        search = Admission(study.config.name, study.search, forecast, keeping.append, own.holds, own.cards_at_most)
        unfinished = search.admitted(unfinished)
    return TuneSearcher(
        search,
        precision=phase.precision,
        objectives=study.config.objectives,
        places=phase.places,
        first=unfinished,
        trial_config=partial(_trial_config, study, phase, forecast),
        stop_reason=scheduler.reason,
    )


def _trial_config(study: StudyRun, phase: Phase, forecast: Forecast | None, proposal: Proposal) -> dict[str, Any]:
    """A LoraTrial's config: what it is, its keeper, what it asks Ray for.

    Also what waits in host memory, and its checkpoint, where it has either.
    """
    adapter_bytes = forecast.fit(proposal.config).adapter_bytes if forecast else None
    resources, checkpoint = phase.resources_for(adapter_bytes), study.checkpoint(proposal.trial_id)
    config = {**identity(proposal), "keeper": KEEPER_NAME, "resources": dict(resources)}
    if not phase.offload.is_none:
        config["offload"] = phase.offload.to_dict()
    return config if checkpoint is None else {**config, "resume_from": checkpoint}


def _run_config(
    study: StudyRun, own: StudyPhase, start: Start, keeping: Keeping, scheduler: EarlyStopping
) -> tune.RunConfig:
    recorder = Recorder(study.config.name, keeping.append, start, scheduler.reason)
    return tune.RunConfig(
        name=f"{own.phase.precision}-{time.time_ns()}",
        storage_path=f"{study.url or study.directory}/{TUNE_FOLDER}",
        callbacks=[recorder, *tune_loggers(study.config.loggers, study.config.name, study.directory)],
        stop=StopWhen(lambda: keeping.error is not None),
        failure_config=tune.FailureConfig(max_failures=MAX_TRIAL_RESTARTS),
        # Not at the end: the last result is what counts, and a save after it could only lose it.
        checkpoint_config=tune.CheckpointConfig(num_to_keep=KEPT_CHECKPOINTS, checkpoint_at_end=False),
        verbose=0,
    )


class StopWhen(tune.Stopper):  # type: ignore[misc]
    """Stops all of Tune's trials when a condition holds."""

    def __init__(self, holds: Callable[[], bool]) -> None:
        self._holds = holds

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Stops no trial by itself."""
        return False

    def __getstate__(self) -> dict[str, Any]:
        """Returns no state: Tune keeps a copy that a resumed study does not use."""
        return {}

    def stop_all(self) -> bool:
        """Whether the condition holds."""
        return self._holds()
