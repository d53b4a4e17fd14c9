"""Names every file of a study's directory, finds its study file, and words what is wrong with a directory."""

from __future__ import annotations

from pathlib import Path

from study.errors import Absent, ConfigError
from trainables.protocol import ADAPTERS_FOLDER as ADAPTERS_FOLDER  # the keeper writes them

STUDY_FILE = "study.yaml"  # resolved: every value that the study ran with
PROVENANCE_FILE = "provenance.json"
BASIS_FILE = "basis.json"  # what trials depend on: data, base model, training settings, as they were at the start
RESULTS_FILE = "results.jsonl"  # one TrialRecord a line
TABLE_FILE = "results.parquet"
TORN_FILE = "results.torn"  # lines that hold no record: torn, or changed by a hand; each after a line that says why
FRONT_FILE = "pareto.json"
REPORT_FILE = "report.html"
PDF_FILE = "report.pdf"
COST_FILE = "cost.json"
TIMELINE_FILE = "timeline.json"  # where the time of all processes went
HOST_SECONDS_FILE = "host_seconds.json"  # where each host's time went, of studies before there was a time line
LIVE_FILE = "live.json"  # what trials are doing, for `watch`
DATABASE_FILE = "optuna.db"
LOCK_FILE = ".lock"
OWNER_FILE = ".owner"  # the process that holds the lock
TUNE_FOLDER = "tune"  # Ray Tune's own, with the trials' checkpoints
STOPPED_PREFIX = "stopped-"  # of Tune's folders, those with what a stopped study wrote of its trials at work
CONFIRM_FOLDER, CONFIRM_ALONE_FOLDER = "confirm", "confirm-alone"  # each a study's directory in the study's
CONFIRM_FILE = "confirm.json"  # in those


def is_there(file: Path) -> bool:
    """Whether a name of the directory is taken, also by a link that leads nowhere; False where nobody can say."""
    try:
        file.lstat()
    except (OSError, ValueError):
        return False
    return True


def is_file(file: Path) -> bool:
    """Whether it is a regular file, or a link to one; False where nobody can say."""
    try:
        return file.is_file()
    except (OSError, ValueError):  # a name too long, a folder that may not be entered
        return False


def study_file(directory: Path) -> Path:
    """Returns the study file of a study's directory. Raises ConfigError where there is none."""
    file = directory / STUDY_FILE
    if not is_file(file):
        rule = f"must be a study's directory, which holds a {STUDY_FILE}"
        raise directory_error(directory, rule, "Name one that `python -m study run` made.")
    return file


def adapter_place(trial_id: str) -> str:
    """Returns where a trial's adapter is, relative to the study's directory."""
    return f"{ADAPTERS_FOLDER}/{trial_id}"


def is_confirmation(directory: Path) -> bool:
    """Whether a study's directory is that of another's confirmation, which lies in it."""
    return directory.name in (CONFIRM_FOLDER, CONFIRM_ALONE_FOLDER) and is_file(directory.parent / STUDY_FILE)


def directory_error(directory: Path, rule: str, remedy: str, option: str = "") -> ConfigError:
    """Returns the error of a directory that breaks a rule, named as the value of `option` where one is given."""
    if option:
        return ConfigError.of(option, "", str(directory), rule, remedy)
    return ConfigError.of(str(directory), "", Absent.UNSHOWN, rule, remedy)
