"""Drives a study on Ray: starts what its phases need, and runs them one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from search_spaces.trial_config import TrialConfig
from study.cluster.nodes import check_shared, cluster_nodes, cluster_resources, uses_cards
from study.cluster.ray_address import LOCAL, ray_address
from study.cluster.ray_start import RayStart, terminated_as_interrupt
from study.plan.forecast import Forecast, forecast_on
from study.plan.phases import StudyPhase, phases_of
from study.progress.live_file import LiveFile
from study.progress.live_table import LiveTable
from study.progress.study_progress import StudyProgress
from study.run.admission import note_verdicts, refuse_what_never_fits
from study.run.conclusion import prepare_conclusion, tolerated
from study.run.cost import counted
from study.run.hosts import end_hosts, prepare_hosts, start_keeper, statuses, timeline_kept
from study.run.record_keeping import Keeping, StudyCharts
from study.run.recorder import Start
from study.run.resumption.checkpoints import saved_when_stopped
from study.run.study_run import StudyRun
from study.run.tune_phase import run_phase
from trainables.timeline import timeline


def run_study(study: StudyRun, show: Callable[[str], None], meanwhile: Callable[[], None] = lambda: None) -> None:
    """Runs every trial that has not ended yet; Ray is started where there is none, and left as it was found.

    `show` gets what the live table says where there is no terminal. Once all trials have ended, `meanwhile` is done
    while Ray ends. Raises PlanError where the machines cannot run the study, StoreError where a record cannot be kept.
    """
    with _connected(study.ray or RayStart(), meanwhile), terminated_as_interrupt():
        if study.url is None:
            check_shared(study.directory)
        forecast, phases = _phases(study)
        keeper = start_keeper(study, max((one.phase.per_device for one in phases), default=1))
        left = {precision: count for precision, count in study.remaining().items() if count}
        progress = StudyProgress(left, study.config.objectives)
        live = LiveFile(study.directory, progress)
        shown = LiveTable(progress, lambda: live.tell(statuses(keeper)), show)
        price = study.config.trial.hardware.price_per_hour
        held = counted(study.directory, forecast.target if forecast else None, price)
        kept = timeline_kept(keeper, study.directory)
        with kept, held, live, saved_when_stopped(study.directory, keeper), shown as table:
            charts = StudyCharts(study.directory.name, study.store.records(), study.config.objectives)
            keeping = Keeping(study.store, table, forecast, charts.note)
            _refuse(study, keeping)
            _run_phases(study, phases, keeper, _starting(table, keeper, forecast), keeping)


@contextmanager
def _connected(ray: RayStart, meanwhile: Callable[[], None]) -> Iterator[None]:
    """Waits for Ray, and ends it at the end; where all went well, `meanwhile` is done while it ends."""
    try:
        ray.wait()
        yield
    except BaseException:
        ray.give_up()
        raise
    ray.end(meanwhile)


def _phases(study: StudyRun) -> tuple[Forecast | None, tuple[StudyPhase, ...]]:
    """What is predicted of the study on Ray's machines, and the phases of what is left of it.

    Earlier verdicts are taken in last: phases decide what waits in host memory, on which it depends whether they hold.
    """
    config, nodes = study.config, cluster_nodes()
    on_cards, local = uses_cards(config.trial.hardware.gpu, nodes), ray_address() == LOCAL
    forecast = forecast_on(config, study.found, cluster_resources(), on_cards, local)
    records = study.store.records()
    ended = [record.config for record in records]
    phases = phases_of(config, study.remaining(), ended, forecast, nodes, on_cards)
    if forecast and study.found:
        note_verdicts(records, forecast, config.trial, study.found.fingerprint)
    return forecast, phases


def _refuse(study: StudyRun, keeping: Keeping) -> None:
    """Ends what is predicted not to fit, as far as it is known before anything starts."""
    if keeping.forecast:
        config = study.config
        listed = config.space.precisions() if config.search.algorithm == "grid" else ()
        refuse_what_never_fits(config.name, study.search, listed, keeping.forecast, keeping.append)
        keeping.raise_any()


def _starting(table: LiveTable, keeper: Any, forecast: Forecast | None) -> Start:
    """What is told when a trial begins: the table, and for the charts the keeper what it is predicted to take.

    From the first one on the driver has time for the study's end, and not before: Tune starts.
    """
    prepare = cache(prepare_conclusion)

    def start(trial_id: str, config: TrialConfig) -> None:
        prepare()
        table.note_started(trial_id, config)
        if forecast:
            keeper.note_predicted.remote(trial_id, forecast.memory(config))

    return start


def _run_phases(study: StudyRun, phases: Sequence[StudyPhase], keeper: Any, start: Start, keeping: Keeping) -> None:
    for number, phase in enumerate(phases):
        prepare_hosts(keeper, phases, number, keeping.forecast)
        with timeline.stage(f"trials in {phase.phase.precision}"):
            run_phase(study, phase, start, keeping)
        tolerated("What was measured could not be kept for later plans", keeping.keep_footprints)
        end_hosts(keeper, study.directory)
