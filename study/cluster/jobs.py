"""Submits studies as jobs of a Ray cluster, follows their logs, and stops them."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, Protocol
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from study.cluster.job_package import JobPackage, write_package
from study.cluster.job_request import DIRECTORY_KEY, JobRequest
from study.errors import FAILED, ConfigError, UserError

DEFAULT_ADDRESS = "http://127.0.0.1:8265"  # where `ray dashboard cluster.yaml` and `kubectl port-forward` leave it
ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
POLL_SECONDS = 2.0
RESPONSE_SECONDS = 10.0
_REFUSED = re.compile(r"status code 40[13]\b|\b40[13] (Client Error|Unauthorized|Forbidden)")
ENTRYPOINT_WORDS = "Running entrypoint for job"  # Ray's own last line in a job's log before the command's first


class JobError(UserError):
    """The cluster cannot be asked, or does not do what it is asked."""

    exit_code = FAILED


class Client(Protocol):
    """What is used of `ray.job_submission.JobSubmissionClient`."""

    def submit_job(self, **options: Any) -> str: ...
    def get_job_info(self, job_id: str) -> Any: ...
    def get_job_logs(self, job_id: str) -> str: ...
    def stop_job(self, job_id: str) -> bool: ...
    def delete_job(self, job_id: str) -> bool: ...
    def list_jobs(self) -> Sequence[Any]: ...


@dataclass(frozen=True)
class Job:
    """A job as the cluster knows it; `exit_code` is the driver's own, None while it runs or where it had none."""

    job_id: str
    status: str
    exit_code: int | None
    directory: str | None
    message: str
    runtime_env: Mapping[str, Any]
    started_ms: int

    @property
    def ended(self) -> bool:
        """Whether it runs no more, and will not."""
        return self.status in ENDED


def job_address(asked: str | None, environment: Mapping[str, str]) -> str:
    """Returns the cluster's job address: as asked, else a URL of the environment, else this machine's port 8265.

    Raises ConfigError where it is no http or https URL: Ray's client would try others for half a minute.
    """
    there = {name: environment[name] for name in ADDRESS_VARIABLES if environment.get(name, "").startswith("http")}
    named, address = next(iter(there.items()), ("", DEFAULT_ADDRESS))
    if asked:
        named, address = "--address", asked
    try:
        parts = urlsplit(address)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        rule = "must be the http:// or https:// URL of a cluster's dashboard"
        raise ConfigError.of(named, "", address, rule, f"Write for example {DEFAULT_ADDRESS}.")
    return address


def responds(address: str, seconds: float = RESPONSE_SECONDS) -> bool:
    """Whether an HTTP server responds at an address within so many seconds; Ray's client would wait for ever."""
    host = address.rpartition("@")[2] if "@" in address else address.partition("://")[2]
    scheme = address.partition("://")[0]
    try:
        with urlopen(f"{scheme}://{host.rstrip('/')}/api/version", timeout=seconds):
            return True
    except HTTPError:  # it wants a token, for example
        return True
    except (OSError, ValueError, HTTPException):
        return False


def use_token(environment: Any, home: Path) -> None:
    """Turns Ray's token authentication on where there is a token; what the user has set stays (before Ray's import)."""
    there = any(environment.get(name) for name in TOKEN_VARIABLES) or (home / ".ray" / "auth_token").is_file()
    if there:
        environment.setdefault("RAY_AUTH_MODE", "token")


def connect(asked: str | None) -> Client:
    """Returns a client of the cluster there. Raises JobError where none responds, or it does not take our token."""
    use_token(os.environ, Path.home())
    from ray.job_submission import JobSubmissionClient

    address = job_address(asked, os.environ)
    if not responds(address):
        raise JobError(_words(ConnectionError(), address))
    with _in_our_words(address):
        client: Client = JobSubmissionClient(address)
        return client


def submit(client: Client, request: JobRequest, package: JobPackage) -> str:
    """Sends the package, begins the job, and returns its id. Raises JobError."""
    with tempfile.TemporaryDirectory(prefix="lora-frontier-job-") as folder, _in_our_words():
        working_dir = write_package(package, Path(folder) / "package.zip")
        return client.submit_job(
            entrypoint=request.command,
            submission_id=request.job_id,
            runtime_env={"working_dir": str(working_dir), "env_vars": dict(request.environment)},
            metadata=dict(request.metadata),
        )


def job(client: Client, job_id: str) -> Job:
    """Returns the job of that id. Raises JobError where there is none."""
    with _in_our_words():
        return _job(client.get_job_info(job_id))


def jobs(client: Client) -> list[Job]:
    """Returns the cluster's submitted jobs, the latest first."""
    with _in_our_words():
        found = [_job(info) for info in client.list_jobs() if info.submission_id]
    return sorted(found, key=lambda one: -one.started_ms)


def stop(client: Client, job_id: str, seconds: float, sleep: Callable[[float], None] = time.sleep) -> Job:
    """Asks a job to end, which lets its trials write checkpoints, and waits. Raises JobError where it does not end."""
    with _in_our_words():
        client.stop_job(job_id)
    return wait(client, job_id, seconds, sleep)


def wait(client: Client, job_id: str, seconds: float, sleep: Callable[[float], None] = time.sleep) -> Job:
    """Waits until a job has ended, and returns it. Raises JobError where it has not within so many seconds."""
    waited = 0.0
    while True:
        found = job(client, job_id)
        if found.ended:
            return found
        if waited >= seconds:
            raise JobError(
                f"{job_id} should have ended within {seconds:.0f} s; it is {found.status}. Look at its logs."
            )
        sleep(POLL_SECONDS)
        waited += POLL_SECONDS


def follow(client: Client, job_id: str, sleep: Callable[[float], None] = time.sleep) -> Iterator[str]:
    """Yields a job's log as it grows, piece by piece, until the job has ended."""
    told = 0
    while True:
        ended = job(client, job_id).ended  # asked before the log, so that nothing said before the end is missed
        with _in_our_words():
            text = client.get_job_logs(job_id)
        if len(text) > told:
            yield text[told:]
            told = len(text)
        if ended:
            return
        sleep(POLL_SECONDS)


def ask(client: Client, job_id: str, command: str, like: Job, seconds: float, **waiting: Any) -> str:
    """Returns what a short command prints on the cluster, in the package of another job, about what only nodes see.

    Raises JobError where the command fails, or takes longer than so many seconds.
    """
    with _in_our_words():
        asked = client.submit_job(entrypoint=command, submission_id=job_id, runtime_env=dict(like.runtime_env))
        ended = wait(client, asked, seconds, **waiting)
        text = client.get_job_logs(asked)
        client.delete_job(asked)
    if ended.exit_code != 0:
        raise JobError(f"`{command}` must succeed on the cluster; it ended as {ended.status}: {text.strip()}")
    return text.rpartition(ENTRYPOINT_WORDS)[2].partition("\n")[2].strip()


def _job(info: Any) -> Job:
    status = getattr(info.status, "value", info.status)
    return Job(
        job_id=info.submission_id,
        status=str(status),
        exit_code=info.driver_exit_code,
        directory=(info.metadata or {}).get(DIRECTORY_KEY),
        message=info.message or "",
        runtime_env=info.runtime_env or {},
        started_ms=info.start_time or 0,
    )


@contextmanager
def _in_our_words(address: str | None = None) -> Iterator[None]:
    """Raises what Ray's client raises as a JobError."""
    try:
        yield
    except JobError:
        raise
    except Exception as error:  # Ray raises RuntimeError, and what `requests` raises
        raise JobError(_words(error, address)) from error


def _words(error: Exception, address: str | None) -> str:
    text = " ".join(str(error).split())
    if type(error).__name__ == "AuthenticationError" or _REFUSED.search(text):
        return (
            "the cluster must know our token, and does not. Set RAY_AUTH_MODE=token, and the cluster's token as "
            "RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token."
        )
    if isinstance(error, ConnectionError):
        where = f" at {address}" if address else ""
        return (
            f"a Ray cluster must respond{where}; none does. Open the way to it (`ray dashboard cluster.yaml`, or "
            "`kubectl port-forward svc/NAME-head-svc 8265`), or give --address."
        )
    if "does not exist" in text or "404" in text:
        return f"the job must be one of the cluster's; {text}. `python -m study status` lists them."
    if isinstance(error, ImportError | RuntimeError) and "ray[default]" in text:
        return "jobs need Ray's dashboard package. Run: pip install -e '.[cluster]'"
    return f"the cluster refused: {text}"
