"""Confirms a front: trains it and its near rivals again with other seeds, and measures them on the test split."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

from analysis.statistics.confirmation import Confirmation, Confirmed, confirmation, near_front, same_configuration
from analysis.wording import DASH, configuration_name, format_duration, format_value, hypervolume_words
from search_spaces.trial_config import TrialConfig
from study.cluster.ray_start import RayStart
from study.config.search_sections import EarlyStoppingSettings, SearchSettings
from study.config.study_config import StudyConfig, load_study
from study.output import aligned, resume_command, say
from study.records.files import write_whole
from study.records.layout import (
    CONFIRM_ALONE_FOLDER,
    CONFIRM_FILE,
    CONFIRM_FOLDER,
    STUDY_FILE,
    directory_error,
    is_confirmation,
    study_file,
)
from study.records.objectives import Objective
from study.records.reading import set_aside_words
from study.records.record import TrialRecord
from study.records.store import ResultsStore, concluded
from study.run.conclusion import remedy_for, tolerated
from study.run.lifecycle import begin, finish, reopen
from trainables.settings import GenerationSettings, RungSettings

LONGEST_NAME = 90  # of a study, so that its name with `-confirm` is one


def confirm(
    directory: Path,
    alone: bool,
    command: str,
    now: datetime,
    accept_changed_data: bool = False,
    ray: RayStart | None = None,
) -> int:
    """Trains a front again, or continues that, says what it came to, and returns the exit code.

    The trials are a study of their own, in the folder `confirm` of the study's directory (`confirm-alone` where each
    trains alone). Nothing is concluded before all of them have ended. Raises ConfigError where nothing can be
    confirmed, the directory is a confirmation itself, the folder holds other configurations, or data, base model or
    training settings are not what the study began with; `accept_changed_data` takes changed data. `ray` is that of
    `lifecycle.begin`.
    """
    config = load_study(study_file(directory))
    _refuse_confirmation(directory)
    found = ResultsStore(directory).reading()
    if left_out := set_aside_words(found.set_aside):
        say(left_out)
    chosen = near_front(found.records, config.objectives)
    if not chosen:
        rule = "must have a complete trial with all objectives measured, to confirm its front"
        raise directory_error(directory, rule, f"Let it run on: {resume_command(directory)}")
    if not concluded(directory):
        say(f"Not all trials have ended, so the front may still change. To end them first: {resume_command(directory)}")
    wanted = confirming(config, chosen, alone)
    folder = directory / (CONFIRM_ALONE_FOLDER if alone else CONFIRM_FOLDER)
    if (folder / STUDY_FILE).is_file():
        _check_same(folder, wanted)
        code = finish(reopen(folder, accept_changed_data, ray))
    else:
        say(f"To confirm: {', '.join(record.trial_id for record in chosen)}, with seeds {_list(config.confirm.seeds)}.")
        code = finish(begin(wanted, folder, command, now, directory, accept_changed_data, ray))
    left = wanted.search.trials - len(ResultsStore(folder).records())
    again = shlex.join(["python", "-m", "study", "confirm", str(directory), *(["--alone"] if alone else [])])
    if left:
        say(f"\nNothing is concluded while {left} of {wanted.search.trials} trials have not ended. Continue: {again}")
    else:
        conclude(directory, folder, config, alone, again)
    return code


def _refuse_confirmation(directory: Path) -> None:
    if is_confirmation(directory):
        rule = "is a confirmation itself, and its seeds are trained already"
        remedy = f"Confirm the study, with other `confirm.seeds` in its file: {directory.parent}"
        raise directory_error(directory, rule, remedy)


def confirming(config: StudyConfig, chosen: Sequence[TrialRecord], alone: bool) -> StudyConfig:
    """Returns the study that trains these trials' configurations with the study's `confirm.seeds`, none stopped early.

    Samples are not generated and adapters not kept: the first study has them.
    """
    configs = tuple(replace(one.config, seed=seed) for one in chosen for seed in config.confirm.seeds)
    hardware = config.trial.hardware
    trial = replace(
        config.trial,
        generation=GenerationSettings(),
        rungs=RungSettings(),
        hardware=replace(hardware, max_adapters_per_gpu=1, measured_costs="anew") if alone else hardware,
    )
    return replace(
        config,
        name=f"{config.name[:LONGEST_NAME]}-confirm",
        trial=trial,
        search=SearchSettings("random", len(configs), config.search.seed, try_first=configs),
        early_stopping=EarlyStoppingSettings(),
        adapters="none",
    )


def conclude(directory: Path, folder: Path, config: StudyConfig, alone: bool, again: str) -> None:
    """Prints what the trials came to, and writes the same as `confirm.json` into their folder.

    What fails is told, with `again` as the command that concludes once more: the trials' records are kept.
    """

    def remedy(error: Exception) -> str:
        return f"All records are kept. {remedy_for(error, 'conclude again')} {again}"

    def found() -> Confirmation:
        records = ResultsStore(folder).records()
        result = confirmation(records, config.objectives, _steps_per_epoch(config, records) if alone else None)
        say("\n" + confirmation_text(result, config.objectives, ResultsStore(directory).records()))
        return result

    result = tolerated("Nothing could be concluded", found, remedy)
    if result is not None:
        tolerated(f"{CONFIRM_FILE} could not be written", partial(_write, folder, alone, result), remedy)


def _write(folder: Path, alone: bool, found: Confirmation) -> None:
    text = json.dumps({"alone": alone, **found.to_document()}, indent=1, allow_nan=False)
    say(str(write_whole(folder / CONFIRM_FILE, text + "\n")))


def confirmation_text(found: Confirmation, objectives: Sequence[Objective], earlier: Sequence[TrialRecord]) -> str:
    """Returns the table of configurations, and the hypervolume with its interval."""
    if not found.members:
        return "Nothing was confirmed: no trial is complete."
    headings = ["first trained as", "configuration", "on the front", *(one.label.lower() for one in objectives)]
    timed = any(one.seconds_per_epoch is not None for one in found.members)
    rows = [_row(one, objectives, earlier, timed) for one in found.members]
    heads = [*headings, *(["epoch, timed"] if timed else [])]
    title = f"Confirmed on the {found.split} split (mean ± spread over seeds; how often on the front):"
    volume = found.hypervolume
    ending = "" if volume is None else "\n" + hypervolume_words(objectives, volume.value, volume)
    return f"{title}\n{aligned(heads, rows)}{ending}"


def _row(member: Confirmed, objectives: Sequence[Objective], earlier: Sequence[TrialRecord], timed: bool) -> list[str]:
    before = [record for record in earlier if same_configuration(record, member.config)]
    name = configuration_name(before[0]) if before else str(member.config)
    values = [_value(member, objective.metric) for objective in objectives]
    seconds = member.seconds_per_epoch
    last = [DASH if seconds is None else format_duration(seconds)] if timed else []
    return [_list([one.trial_id for one in before]), name, f"{member.probability:.0%}", *values, *last]


def _value(member: Confirmed, metric: str) -> str:
    mean, spread = member.intervals[metric].value, member.spreads[metric]
    text = format_value(metric, mean)
    return text if not spread else f"{text} ± {format_value(metric, spread)}"


def _steps_per_epoch(config: StudyConfig, records: Sequence[TrialRecord]) -> int | None:
    from trainables.dataset.batches import steps_per_epoch

    rows = next((one.dataset["statistics"]["train"]["rows"] for one in records if one.dataset), None)
    training = config.trial.training
    if rows is None:
        return None
    return steps_per_epoch(rows, training.micro_batch_size, training.gradient_accumulation_steps)


def _check_same(folder: Path, wanted: StudyConfig) -> None:
    there = load_study(folder / STUDY_FILE)
    if _seeded(there.search.try_first) != _seeded(wanted.search.try_first):
        rule = "was begun to confirm other configurations or seeds"
        raise directory_error(folder, rule, "Move it away, to begin anew.")


def _seeded(configs: Sequence[TrialConfig]) -> set[TrialConfig]:
    return {replace(one, target_modules=tuple(sorted(one.target_modules))) for one in configs}


def _list(values: Sequence[object]) -> str:
    return ", ".join(map(str, values)) or DASH
