"""Names every file of a study directory, and finds them again."""

from __future__ import annotations

from pathlib import Path

from study.errors import Absent, ConfigError, ConfigFault

COST_FILE = "cost.json"


HOST_SECONDS_FILE = "host_seconds.json"  # where each host's time went


DATABASE_FILE = "optuna.db"


REPORT_FILE = "report.html"

FRONT_FILE = "pareto.json"


PROVENANCE_FILE = "provenance.json"


PDF_FILE = "report.pdf"


STUDY_FILE = "study.yaml"
RESULTS_FILE = "results.jsonl"
TABLE_FILE = "results.parquet"
TORN_FILE = "results.torn"  # what is left of lines that were not written to their end
LIVE_FILE = "live.json"
LOCK_FILE = ".lock"
OWNER_FILE = ".owner"
ADAPTERS_FOLDER = "adapters"
CONFIRM_FOLDER, CONFIRM_ALONE_FOLDER = "confirm", "confirm-alone"
TUNE_FOLDER = "tune"
STATE_FILE = "training.safetensors"  # in a checkpoint's folder, which lies in Tune's


def study_file(directory: Path) -> Path:
    """The study file of a study directory. Raises ConfigError where there is none."""
    file = directory / STUDY_FILE
    if not file.is_file():
        rule = "must be a study's directory, which holds a study.yaml"
        raise _directory_error(directory, rule, "Name one that `python -m study run` made.")
    return file


def _directory_error(directory: Path, rule: str, remedy: str, where: str = "") -> ConfigError:
    value = Absent.UNSHOWN if not where else str(directory)
    return ConfigError([ConfigFault(where or str(directory), "", value, rule, remedy)])


def is_confirmation(directory: Path) -> bool:
    """Whether a study's directory is that of another's confirmation, which lies in it."""
    return directory.name in (CONFIRM_FOLDER, CONFIRM_ALONE_FOLDER) and (directory.parent / STUDY_FILE).is_file()
