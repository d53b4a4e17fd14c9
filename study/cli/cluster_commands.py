"""The commands for studies on a cluster: `submit`, `status`, `logs`, `fetch` and `stop`."""

from __future__ import annotations

import argparse
import os
import shlex
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from study.cli.arguments import add_command, add_study, path, whole_number, words
from study.config.paths import is_url
from study.errors import DONE, FAILED, Absent, ConfigError
from study.output import put, say
from study.records.layout import STUDY_FILE
from study.secrets import masked

ASK_SECONDS = 120.0  # for what only the nodes can see: a job of its own says it
END_SECONDS = 30.0  # that a job may take beyond what it has for its trials' checkpoints


def add_cluster_commands(commands: Any) -> None:
    """Adds the commands to the parser's."""
    _add_submit(commands)
    text = "how far a job or a study directory is, with its front so far"
    parser = add_command(commands, "status", _status, text)
    parser.add_argument("job", type=place, nargs="?", metavar="JOB|DIR", help="left out: all jobs of the cluster")
    _add_address(parser)
    parser = add_command(commands, "logs", _logs, "what a job has printed")
    parser.add_argument("job", type=words, metavar="JOB")
    parser.add_argument("--follow", action="store_true", help="continue until the job ends; exit with its code")
    _add_address(parser)
    parser = add_command(commands, "fetch", _fetch, "copy a study's results from where the cluster keeps them")
    parser.add_argument("place", type=place, metavar="JOB|URL|DIR")
    parser.add_argument("--out", type=path, metavar="DIR", help="where to (default: runs/NAME)")
    _add_address(parser)
    parser = add_command(commands, "stop", _stop, "end a job; its trials write checkpoints first, for a later `resume`")
    parser.add_argument("job", type=words, metavar="JOB")
    _add_address(parser)


def _add_submit(commands: Any) -> None:
    parser = add_command(commands, "submit", _submit, "run a study as a job of a Ray cluster")
    add_study(parser, may_lack=True)
    text = "continue the study of this directory of the cluster instead"
    parser.add_argument("--resume", type=words, metavar="DIR", help=text)
    _add_address(parser)
    parser.add_argument("--wait", action="store_true", help="show the job's log until it ends; exit with its code")
    text = "print a RayJob for `kubectl apply -f -` instead (see --workers, --image)"
    parser.add_argument("--kubernetes", action="store_true", help=text)
    text = "with --kubernetes: nodes with a card each"
    parser.add_argument("--workers", type=whole_number(1, 10_000), default=1, metavar="N", help=text)
    parser.add_argument(
        "--image", type=words, metavar="NAME", help="with --kubernetes: an image that holds this checkout"
    )


def place(text: str) -> str:
    """Returns a job's id, a folder or a URL of the command line. Raises ArgumentTypeError for what can name none."""
    if "://" in words(text) and not is_url(text):
        raise argparse.ArgumentTypeError("must be a URL with a place in it, such as s3://BUCKET/PREFIX/NAME")
    return text


def _add_address(parser: Any) -> None:
    text = "the cluster's job address (default: $RAY_API_SERVER_ADDRESS, or http://127.0.0.1:8265)"
    parser.add_argument("--address", type=words, metavar="URL", help=text)


def _submit(options: argparse.Namespace) -> int:
    from study.cluster import jobs
    from study.cluster.job_package import code_package, job_package, package_text
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
    say(package_text(package))
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

    if options.study is None:
        raise ConfigError.of("STUDY.yaml", "", Absent.UNSHOWN, "must be named, or --resume DIR", "Give one of them.")
    config = load_study(options.study, options.overrides)
    return config, job_request(config, job_storage(options.study, options.overrides), datetime.now())


def _print_manifest(options: argparse.Namespace, config: Any, request: Any) -> int:
    from study.cluster.kubernetes import ray_job_text

    put(ray_job_text(config, request, options.workers, options.image))
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
        return f"Its results cannot be read yet: {error}"


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
    """Raises JobError where this machine does not see a folder of the nodes."""
    from study.cluster.jobs import JobError

    if not (Path(folder) / STUDY_FILE).is_file():
        rule = f"a folder must be seen from this machine to be fetched; {folder} is not"
        raise JobError(f"{rule}. From a cluster of `ray up`: ray rsync-down cluster.yaml {shlex.quote(folder)} runs/")


def job_line(found: Any) -> str:
    """Returns a job in one line, with the exit code of its driver."""
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
    """Shows a job's log to its end and returns its driver's exit code, 1 where it had none."""
    from study.cluster import jobs

    line = ""
    for piece in jobs.follow(client, job_id):
        whole, end, line = (line + piece).rpartition("\n")  # a secret may stand across two pieces, hardly two lines
        put(masked(whole) + end, end="")
    put(masked(line), end="")
    found = jobs.job(client, job_id)
    say(job_line(found))
    return FAILED if found.exit_code is None else int(found.exit_code)


def _stop(options: argparse.Namespace) -> int:
    from study.cluster import jobs
    from study.cluster.job_request import STOP_SECONDS

    client = jobs.connect(options.address)
    found = jobs.stop(client, options.job, STOP_SECONDS + END_SECONDS)
    say(job_line(found))
    if found.directory:
        say(f"To continue: python -m study submit --resume {shlex.quote(found.directory)}")
    return DONE
