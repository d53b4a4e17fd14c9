"""The driver: runs a study, or goes on with one that was interrupted (RAY)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray import tune

from search_spaces.trial_config import TrialConfig
from study.cluster.nodes import check_shared, cluster_nodes, cluster_resources
from study.cluster.object_store import stored_checkpoint
from study.cluster.ray_address import LOCAL, ray_address
from study.cluster.ray_session import ray_session, terminated_as_interrupt
from study.config.study_config import StudyConfig
from study.plan.forecast import Forecast, forecast_on
from study.plan.phases import StudyPhase, phases_of
from study.plan.preflight import Preflight
from study.progress.live_file import LiveFile
from study.progress.live_table import LiveTable
from study.progress.study_progress import StudyProgress
from study.records.files import write_whole
from study.records.layout import HOST_SECONDS_FILE, TUNE_FOLDER, is_confirmation
from study.records.store import ResultsStore
from study.run.admission import Admission, refuse_what_never_fits
from study.run.charts import StudyCharts
from study.run.checkpoints import latest_checkpoint, saved_when_stopped
from study.run.cost import counted
from study.run.hosts_ahead import prepare_hosts
from study.run.loggers import tune_loggers
from study.run.record_keeping import Keeping
from study.run.recorder import Recorder, Start
from study.run.tune_scheduler import early_stopping
from study.run.tune_searcher import TuneSearcher
from study.search.study_search import StudySearch
from trainables.actors.host_keeper import KEEPER_NAME, HostKeeper
from trainables.actors.lora_trial import LoraTrial
from trainables.limits import DEFAULT_PACK

MAX_TRIAL_RESTARTS = 3


@dataclass(frozen=True)
class StudyRun:
    """A study in its directory, with its search and its results so far."""

    config: StudyConfig
    directory: Path
    search: StudySearch
    store: ResultsStore
    found: Preflight | None = None  # of model and data; None where nothing was checked

    @property
    def url(self) -> str | None:
        """Its place in an object store, where its storage is one; a confirmation's is in its study's."""
        storage, name = self.config.storage, self.directory.name
        if is_confirmation(self.directory):
            name = f"{self.directory.parent.name}/{name}"
        return f"{storage}/{name}" if isinstance(storage, str) else None

    def checkpoint(self, trial_id: str) -> str | None:
        """The folder, or URL, of a trial's newest checkpoint."""
        return stored_checkpoint(self.url, trial_id) if self.url else latest_checkpoint(self.directory, trial_id)


def run_study(study: StudyRun, show: Callable[[str], None], meanwhile: Callable[[], None] = lambda: None) -> None:
    """Runs every trial that has not ended yet; Ray is started where there is none, and left as it was found.

    Once all have ended, `meanwhile` is done while Ray ends.
    """
    with ray_session(meanwhile), terminated_as_interrupt():
        if study.url is None:
            check_shared(study.directory)
        config, left = study.config, remaining(study)
        gpu, local = use_gpu(config), ray_address() == LOCAL
        forecast = forecast_on(config, study.found, cluster_resources(), gpu, local)
        ended = [record.config for record in study.store.records()]
        phases = phases_of(config, left, ended, forecast, cluster_nodes(), gpu)
        keeper = _start_keeper(study, max((one.phase.per_device for one in phases), default=1))
        progress = StudyProgress({precision: count for precision, count in left.items() if count}, config.objectives)
        held = counted(study.directory, forecast.target if forecast else None, config.trial.hardware.price_per_hour)
        live = LiveFile(study.directory, progress)
        shown = LiveTable(progress, lambda: live.tell(_statuses(keeper)), show)
        charts = StudyCharts(study.directory.name, study.store.records(), config.objectives)
        with held, live, saved_when_stopped(study.directory, keeper), shown as table:
            keeping = Keeping(study.store, table, forecast, charts.note)
            _refuse(study, keeping)
            for number, phase in enumerate(phases):
                prepare_hosts(keeper, phases, number, forecast)
                _run_phase(study, phase, _starting(table, keeper, forecast), keeping)
                keeping.keep_lessons()
                seconds = ray.get(keeper.host_seconds.remote(), timeout=60)
                write_whole(study.directory / HOST_SECONDS_FILE, json.dumps(seconds, indent=1) + "\n")
                ray.get(keeper.end_hosts.remote(), timeout=60)


def remaining(study: StudyRun) -> dict[str, int]:
    """How many trials of each precision are still to run, unfinished ones included."""
    ended: list[str] = [record.config.precision for record in study.store.records()]
    total = {precision: study.search.count(precision) for precision in study.config.space.precisions()}
    return {precision: max(0, count - ended.count(precision)) for precision, count in total.items()}


def use_gpu(config: StudyConfig) -> bool:
    """Whether the study runs on cards: as its file says, or where it says `auto`, if there are any."""
    if config.trial.hardware.gpu == "auto":
        return any(node.gpus for node in cluster_nodes())
    return config.trial.hardware.gpu != "cpu"


def _refuse(study: StudyRun, keeping: Keeping) -> None:
    """Ends what is predicted not to fit, as far as it is known before anything starts."""
    if keeping.forecast:
        config = study.config
        listed = config.space.precisions() if config.search.algorithm == "grid" else ()
        refuse_what_never_fits(config.name, study.search, listed, keeping.forecast, keeping.append)
        keeping.raise_any()


def _starting(table: LiveTable, keeper: Any, forecast: Forecast | None) -> Start:
    """What is told when a trial begins: the table, and for the charts the keeper what it is predicted to take."""

    def start(trial_id: str, config: TrialConfig) -> None:
        table.note_started(trial_id, config)
        if forecast:
            keeper.note_predicted.remote(trial_id, forecast.memory(config))

    return start


def _run_phase(study: StudyRun, own: StudyPhase, start: Start, keeping: Keeping) -> None:
    phase, forecast = own.phase, keeping.forecast
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(phase.places)  # trial actors start side by side
    search: StudySearch | Admission = study.search
    unfinished = [one for one in study.search.unfinished() if own.holds(one.config)]
    if forecast:
        search = Admission(study.config.name, study.search, forecast, keeping.append, own.holds, own.cards_at_most)
        unfinished = search.admitted(unfinished)
    scheduler = early_stopping(study.config.early_stopping, study.store.records())
    searcher = TuneSearcher(
        search,
        precision=phase.precision,
        objectives=study.config.objectives,
        places=phase.places,
        first=unfinished,
        extra={"keeper": KEEPER_NAME},
        resources_of=lambda proposal: phase.resources_for(
            forecast.fit(proposal.config).adapter_bytes if forecast else None
        ),
        resume_from=lambda proposal: study.checkpoint(proposal.trial_id),
        stop_reason=scheduler.reason,
    )

    tuner = tune.Tuner(
        LoraTrial,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=lambda trial: trial.config["trial_id"],
            trial_dirname_creator=lambda trial: trial.config["trial_id"],
        ),
        run_config=tune.RunConfig(
            name=f"{phase.precision}-{time.time_ns()}",
            storage_path=f"{study.url or study.directory}/{TUNE_FOLDER}",
            callbacks=[
                Recorder(study.config.name, keeping.append, start, scheduler.reason),
                *tune_loggers(study.config.loggers, study.config.name, study.directory),
            ],
            stop=StopWhen(lambda: keeping.error is not None),
            failure_config=tune.FailureConfig(max_failures=MAX_TRIAL_RESTARTS),
            # Not at the end: the last result is what counts, and a save after it could only lose it.
            checkpoint_config=tune.CheckpointConfig(num_to_keep=2, checkpoint_at_end=False),
            verbose=0,
        ),
    )
    tuner.fit()
    keeping.raise_any()


class StopWhen(tune.Stopper):  # type: ignore[misc]
    """Stops all of Tune's trials when a condition holds."""

    def __init__(self, holds: Callable[[], bool]) -> None:
        self._holds = holds

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial by itself."""
        return False

    def __getstate__(self) -> dict[str, Any]:
        """Nothing to go on with: Tune keeps a copy that a resumed study does not use."""
        return {}

    def stop_all(self) -> bool:
        """Whether the condition holds."""
        return self._holds()


def _start_keeper(study: StudyRun, most_on_a_device: int) -> Any:
    """The keeper; its hosts take packs as large as the plan's, also where they pay beyond the usual bound."""
    trial, hardware = study.config.trial, study.config.trial.hardware
    if hardware.max_adapters_per_gpu is None and most_on_a_device > DEFAULT_PACK["cuda"]:
        trial = replace(trial, hardware=replace(hardware, max_adapters_per_gpu=most_on_a_device))
    keep_adapters = study.config.adapters != "none"
    threads = int(min((node.cpus for node in cluster_nodes() if node.cpus), default=1.0))
    options = {"name": KEEPER_NAME, "num_cpus": 0, "max_concurrency": 1}
    here = ray.get_runtime_context().get_node_id()  # adapters are written where the study directory is
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=False)
    keeper = ray.remote(HostKeeper).options(**options, scheduling_strategy=strategy)
    return keeper.remote(trial, str(study.directory), keep_adapters, threads)


def _statuses(keeper: Any) -> Mapping[str, Any]:
    statuses: Mapping[str, Any] = ray.get(keeper.statuses.remote(), timeout=10)
    return statuses
