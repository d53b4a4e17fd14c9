"""Says what a job is asked to do: its command, its name, and where its study will be."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from study.cluster.job_package import JOB_STUDY_FILE
from study.config.overrides import apply_overrides
from study.config.paths import is_url
from study.config.study_config import DEFAULT_STORAGE, StudyConfig
from study.errors import ConfigError
from study.output import resume_command
from study.secrets import masked_place
from study.strict_yaml import read_yaml

TIME_FORM = "%Y%m%d-%H%M%S"
STOP_SECONDS = 120  # that a job has between being asked to stop and being killed: the trials' checkpoints are written
# Nothing secret: a job's environment can be read in the dashboard. Tokens of the hub and of the cloud lie on the nodes.
ENVIRONMENT = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS), "RAY_USAGE_STATS_ENABLED": "0"}
DIRECTORY_KEY = "study_directory"  # of a job's metadata


@dataclass(frozen=True)
class JobRequest:
    """A job as Ray is asked for it; `directory` is the study's place, a folder of the nodes or a URL."""

    job_id: str
    command: str
    directory: str
    environment: Mapping[str, str] = field(default_factory=lambda: dict(ENVIRONMENT))

    @property
    def metadata(self) -> Mapping[str, str]:
        """What Ray keeps beside the job, so that `status` and `fetch` find the study."""
        return {DIRECTORY_KEY: self.directory}


def job_request(config: StudyConfig, storage: str, now: datetime) -> JobRequest:
    """Returns the job that runs this study, with its results in `storage`, as `job_storage` returns it."""
    job_id = f"{config.name}-{now.strftime(TIME_FORM)}"
    out = job_id if is_url(storage) else f"{storage.rstrip('/')}/{job_id}"
    words = ["python", "-m", "study", "run", JOB_STUDY_FILE, "--out", out]
    return JobRequest(job_id, shlex.join(words), f"{storage.rstrip('/')}/{job_id}")


def resume_request(directory: str, now: datetime) -> JobRequest:
    """Returns the job that continues the study of a directory (or URL) that the cluster's nodes see.

    Raises ConfigError where it holds credentials, which the cluster's table of jobs would show, or is no such place.
    """
    directory = directory.rstrip("/")
    if not (is_url(directory) or directory.startswith("/")):
        remedy = "Give the directory's absolute path there, such as /shared/runs/NAME."
        raise ConfigError.of("--resume", "", directory, "must be an absolute path of the cluster, or a URL", remedy)
    if masked_place(directory) != directory:
        rule = "must hold no credentials, which all who see the cluster's jobs would read"
        remedy = "Write the URL without them; the nodes take the cloud's own (AWS_PROFILE, a role)."
        raise ConfigError.of("--resume", "", directory, rule, remedy)
    command = resume_command(directory)
    return JobRequest(f"{directory.rpartition('/')[2]}-resumed-{now.strftime(TIME_FORM)}", command, directory)


def job_storage(file: Path, overrides: Sequence[str]) -> str:
    """Returns the storage that a study file and its overrides name. Raises ConfigError where no job can use it.

    A job's own folder is a throw-away copy on one node, so that a relative path would lose the results.
    """
    values = read_yaml(file)
    study: dict[str, Any] = values if isinstance(values, dict) else {}
    apply_overrides(study, overrides)
    storage = study.get("storage", DEFAULT_STORAGE)
    if isinstance(storage, str) and (is_url(storage) or storage.startswith("/")):
        return storage
    rule = "must be a folder that all nodes have, as an absolute path, or s3:// or gs://, for a job"
    remedy = "Give it with the command: --set storage=/shared/runs (cluster.yaml makes /shared)."
    raise ConfigError.of(str(file), "storage", storage, rule, remedy)
