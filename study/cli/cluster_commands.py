"""The commands for studies on a cluster: submit, status, logs, stop, fetch. (standard library at import)"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from study.config.paths import is_url
from study.output import say

DONE, FAILED = 0, 1
ASK_SECONDS = 120.0  # for what only the nodes can see: a job of its own says it
STUDY_FILE = "study.yaml"


def add_cluster_commands(commands: Any, add_study: Callable[[Any, bool], None]) -> None:
    """Adds the commands to a parser's; `add_study` adds a study file and its overrides to one of them."""
    command = _add(commands, "submit", _submit, "run a study as a job of a Ray cluster")
    add_study(command, True)
    command.add_argument(
        "--resume", metavar="DIR", help="go on with the study of this directory of the cluster instead"
    )
    _add_address(command)
    command.add_argument("--wait", action="store_true", help="show the job's log until it ends; exit with its code")
    command.add_argument(
        "--kubernetes",
        action="store_true",
        help="print a RayJob for `kubectl apply -f -` instead (see --workers, --image)",
    )
    command.add_argument(
        "--workers", type=int, default=1, metavar="N", help="with --kubernetes: nodes with a card each"
    )
    command.add_argument("--image", metavar="NAME", help="with --kubernetes: an image that holds this checkout")
    command = _add(commands, "status", _status, "how far a job or a study directory is, with its front so far")
    command.add_argument("job", nargs="?", metavar="JOB|DIR", help="left out: all jobs of the cluster")
    _add_address(command)
    command = _add(commands, "logs", _logs, "what a job has printed")
    command.add_argument("job", metavar="JOB")
    command.add_argument("--follow", action="store_true", help="go on until the job ends; exit with its code")
    _add_address(command)
    command = _add(commands, "fetch", _fetch, "copy a study's results from where the cluster keeps them")
    command.add_argument("place", metavar="JOB|URL|DIR")
    command.add_argument("--out", type=Path, metavar="DIR", help="where to (default: runs/NAME)")
    _add_address(command)
    command = _add(commands, "stop", _stop, "end a job; its trials write checkpoints first, and `resume` goes on")
    command.add_argument("job", metavar="JOB")
    _add_address(command)


def _add(commands: Any, name: str, function: Callable[[argparse.Namespace], int], text: str) -> Any:
    command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    command.set_defaults(command=function)
    return command


def _add_address(command: Any) -> None:
    text = "the cluster's job address (default: $RAY_API_SERVER_ADDRESS, or http://127.0.0.1:8265)"
    command.add_argument("--address", metavar="URL", help=text)


def _submit(options: argparse.Namespace) -> int:
    from study.cluster import jobs
    from study.cluster.job_package import code_package, job_package
    from study.cluster.job_request import resume_request

    if options.resume:
        request, package = resume_request(options.resume, datetime.now()), code_package()
    else:
        config, request = _asked(options)
        if options.kubernetes:
            return _print_manifest(options, config, request)
        package = job_package(config)
    client = jobs.connect(options.address)
    job_id = jobs.submit(client, request, package)
    say(f"Submitted {job_id}. Its results go to {request.directory}")
    if options.wait:
        return _follow(client, job_id)
    words = [f"python -m study {command} {job_id}" for command in ("status", "logs", "stop")]
    say("\n".join(words))
    return DONE


def _asked(options: argparse.Namespace) -> tuple[Any, Any]:
    """The study, and the job that is to run it."""
    from study.cluster.job_request import job_request, job_storage
    from study.config.study_config import load_study
    from study.errors import Absent, ConfigError, ConfigFault

    if options.study is None:
        raise ConfigError(
            [ConfigFault("STUDY.yaml", "", Absent.MISSING, "must be named, or --resume DIR", "Give one.")]
        )
    config = load_study(options.study, options.overrides)
    return config, job_request(config, job_storage(options.study, options.overrides), datetime.now())


def _print_manifest(options: argparse.Namespace, config: Any, request: Any) -> int:
    from study.cluster.kubernetes import ray_job_text

    say(ray_job_text(config, request, options.workers, options.image))
    return DONE


def _status(options: argparse.Namespace) -> int:
    if options.job and (options.job.startswith("/") or Path(options.job).is_dir()):
        from study.reporting.summary import standing_text

        say(standing_text(Path(options.job)))
        return DONE
    if options.job and is_url(options.job):
        say(_stored_standing(options.job))
        return DONE
    from study.cluster import jobs

    client = jobs.connect(options.address)
    if not options.job:
        say("\n".join(map(job_line, jobs.jobs(client))) or "The cluster has no job.")
        return DONE
    found = jobs.job(client, options.job)
    say(job_line(found))
    if found.directory:
        say("\n" + _standing(client, found))
    return DONE


def _standing(client: Any, found: Any) -> str:
    """The study's progress: from its directory where this machine sees it, else from a node that does."""
    from study.cluster import jobs
    from study.reporting.summary import standing_text

    if (Path(found.directory) / STUDY_FILE).is_file():
        return standing_text(Path(found.directory))
    if is_url(found.directory):
        return _stored_standing(found.directory)
    command = shlex.join(["python", "-m", "study", "status", found.directory])
    question = f"{found.job_id}-status-{os.getpid()}-{datetime.now():%H%M%S}"
    try:
        return jobs.ask(client, question, command, found, ASK_SECONDS)
    except jobs.JobError as error:
        return f"Of its results nothing can be said yet: {error}"


def _stored_standing(url: str) -> str:
    from study.cluster.object_store import fetch
    from study.reporting.summary import standing_text

    with tempfile.TemporaryDirectory() as folder:
        fetch(url, Path(folder))
        return standing_text(Path(folder))


def _fetch(options: argparse.Namespace) -> int:
    from study.cluster import jobs
    from study.cluster.object_store import fetch

    place = options.place
    if not is_url(place) and not place.startswith("/"):
        place = jobs.job(jobs.connect(options.address), place).directory or place
    target = options.out or Path("runs") / place.rstrip("/").rpartition("/")[2]
    if not is_url(place):
        fetchable(place)
        place = Path(place).as_uri()
    files = fetch(place, target)
    say(f"{files} files in {target}. Look at them: python -m study report {shlex.quote(str(target))}")
    return DONE


def fetchable(folder: str) -> None:
    """Raises JobError where a folder of the nodes is not to be seen from this machine."""
    from study.cluster.jobs import JobError

    if not (Path(folder) / STUDY_FILE).is_file():
        rule = f"a folder must be seen from this machine to be fetched; {folder} is not"
        raise JobError(f"{rule}. From a cluster of `ray up`: ray rsync-down cluster.yaml {shlex.quote(folder)} runs/")


def job_line(found: Any) -> str:
    """A job in one line, with the exit code of its driver."""
    ended = "" if found.exit_code is None else f" (exit code {found.exit_code})"
    return f"{found.job_id}: {found.status.lower()}{ended}" + (f", {found.directory}" if found.directory else "")


def _logs(options: argparse.Namespace) -> int:
    from study.cluster import jobs

    client = jobs.connect(options.address)
    if options.follow:
        return _follow(client, options.job)
    jobs.job(client, options.job)
    say(client.get_job_logs(options.job).rstrip())
    return DONE


def _follow(client: Any, job_id: str) -> int:
    """Shows a job's log to its end; answers its driver's exit code, 1 where it had none."""
    from study.cluster import jobs

    for piece in jobs.follow(client, job_id):
        sys.stdout.write(piece)
        sys.stdout.flush()
    found = jobs.job(client, job_id)
    say(job_line(found))
    return FAILED if found.exit_code is None else int(found.exit_code)


def _stop(options: argparse.Namespace) -> int:
    from study.cluster import jobs
    from study.cluster.job_request import STOP_SECONDS

    client = jobs.connect(options.address)
    found = jobs.stop(client, options.job, STOP_SECONDS + 30.0)
    say(job_line(found))
    if found.directory:
        say(f"To go on: python -m study submit --resume {shlex.quote(found.directory)}")
    return DONE
