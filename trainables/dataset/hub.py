"""Tells hub ids from local files, and downloads a dataset's rows from the Hugging Face hub."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainables.dataset.files import DatasetError

PROBE_SECONDS = 10.0
LOCAL_REMEDY = "Download it where there is a network and give the file's path instead"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
LONGEST_HUB_ID = 2 * 96 + 1  # the hub's own bound on each of the two names
FILE_ENDINGS = (".json", ".jsonl")


def local_file(source: str) -> Path | None:
    """Returns the source as a local path; None where it is a hub id.

    What is neither a file nor a hub id is taken for the path of a missing file.
    """
    path = Path(source)
    # Not Path.exists, which raises where a name is too long.
    if os.path.exists(path) or path.suffix in FILE_ENDINGS or not HUB_ID.fullmatch(source):
        return path
    return None if len(source) <= LONGEST_HUB_ID else path


def hub_rows(hub_id: str, configuration: str) -> dict[str, list[dict[str, Any]]]:
    """Downloads all rows of a hub dataset's configuration, by split; without a network they come from the local cache.

    Raises DatasetError where the dataset is gated, unknown, or neither reachable nor cached.
    """
    import datasets  # only here: slow to import, and needless for local files

    try:
        with _offline_unless_reachable(hub_id):
            loaded = _load_hub(datasets, hub_id, configuration)
        return {str(split): [dict(row) for row in rows] for split, rows in loaded.items()}
    except Exception as error:  # the hub's client raises whatever its HTTP library does
        raise DatasetError(_hub_message(hub_id, error)) from error


def _load_hub(datasets: Any, hub_id: str, configuration: str) -> Any:
    try:
        return datasets.load_dataset(hub_id, configuration)
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
    # The hub keeps a Parquet copy of datasets that are written as a script, one folder per configuration.
    return datasets.load_dataset(hub_id, data_dir=configuration, revision="refs/convert/parquet")


@contextmanager
def _offline_unless_reachable(hub_id: str) -> Iterator[None]:
    """Asks the hub once; where it does not reply, the client looks into its cache alone and does not retry for long."""
    import datasets
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    before = datasets.config.HF_HUB_OFFLINE
    try:
        huggingface_hub.dataset_info(hub_id, timeout=PROBE_SECONDS)
    except HfHubHTTPError:
        pass  # the hub is there; loading says what is wrong
    except Exception:
        datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _hub_message(hub_id: str, error: Exception) -> str:
    detail = str(error).strip().split("\n")[0][:300] or type(error).__name__
    if "gated" in detail.lower() or "GatedRepo" in type(error).__name__:
        return (
            f"dataset.source must be a dataset you have access to; {hub_id} is gated. Ask for access on "
            f"https://huggingface.co/datasets/{hub_id}, then set the environment variable HF_TOKEN to your token."
        )
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
        rule = f"dataset.source must be reachable; the hub's {hub_id} is not ({detail})"
        return f"{rule}. {LOCAL_REMEDY}, or check the network; a private dataset needs HF_TOKEN."
    rule = f"dataset.source must be a file, or a dataset on the hub that can be read; {hub_id} is neither ({detail})"
    return f"{rule}. Check its spelling (a private one needs HF_TOKEN). {LOCAL_REMEDY}."
