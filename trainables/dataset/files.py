"""Rows as they stand in a file or on the hub, before they mean anything. (no torch)"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROBE_SECONDS = 10.0
FAULTS_SHOWN = 10
LOCAL_REMEDY = "Download it where there is a network and give the file's path instead"


class DatasetError(ValueError):
    """The data cannot be used; the message says rule, value and remedy, one fault a line."""


def read_text(path: Path, key: str) -> str:
    """The file's UTF-8 text, without a byte order mark; `key` is the setting that named it, for the message."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        remedy = "Check the path; a relative one starts at the study file's folder."
        raise DatasetError(f"{key} must name a file that is there; {path} is not. {remedy}") from None
    except UnicodeDecodeError as error:
        remedy = "Save it as UTF-8."
        raise DatasetError(f"{key} must be UTF-8; {path} is not, at byte {error.start}. {remedy}") from None
    except OSError as error:
        remedy = "Name a readable file."
        raise DatasetError(f"{key} must name a readable file; {path}: {error.strerror}. {remedy}") from None


def read_json(path: Path, key: str) -> Any:
    """The file's one JSON value."""
    text = read_text(path, key)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{key} must hold JSON; {path} does not: {error}. Correct the file.") from None


def read_rows(path: Path, key: str) -> list[tuple[str, Any]]:
    """The rows of a JSON Lines file or of one JSON list, each after its name, "row 17" (counted from 1, as lines)."""
    text = read_text(path, key)
    if text.lstrip().startswith("["):
        return [(f"row {number}", row) for number, row in enumerate(read_json(path, key), start=1)]
    # Not splitlines(): it also splits at U+2028 and the like, which may stand inside a JSON string.
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    rows, faults = [], []
    for number, line in lines:
        try:
            rows.append((f"row {number}", json.loads(line)))
        except (ValueError, RecursionError) as error:
            faults.append(
                f"{key}: {path}, row {number}: every line must be one JSON object; {error}. Correct the line."
            )
    raise_faults(faults)
    return rows


def raise_faults(faults: Sequence[str]) -> None:
    """Raises the faults as one DatasetError, the first ten in full; does nothing where there are none."""
    if not faults:
        return
    more = len(faults) - FAULTS_SHOWN
    raise DatasetError("\n".join([*faults[:FAULTS_SHOWN], *([f"... and {more} more faults"] if more > 0 else [])]))


def text_faults(row: Any, names: Sequence[str]) -> list[str]:
    """What keeps `row` from being an object with a text under each of `names`, each fault with its remedy."""
    if not isinstance(row, Mapping):
        return [f"every row must be a JSON object; this one is {shown(row)}. Write it as an object."]
    faults = []
    for name in names:
        if name not in row:
            keys = ", ".join(map(str, row)) or "none"
            faults.append(f"every row needs `{name}`; this one's keys are: {keys}. Add `{name}`.")
        elif not isinstance(row[name], str):
            faults.append(f"`{name}` must be text; it is {shown(row[name])}. Put it in quotes.")
        elif not is_unicode(row[name]):
            faults.append(f"`{name}` must be valid Unicode; it holds half of a surrogate pair. Remove that.")
    return faults


def shown(value: Any) -> str:
    """A value, short enough for a message."""
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def is_unicode(text: str) -> bool:
    """Whether the text can be encoded (JSON may smuggle in lone surrogates, which no tokenizer takes)."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def hub_rows(hub_id: str, configuration: str) -> dict[str, list[dict[str, Any]]]:
    """All rows of a hub dataset's configuration, by split; from the local cache where there is no network.

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
    """Asks the hub once; without an answer, the client looks only into its cache, instead of retrying for long."""
    import datasets
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    before = datasets.config.HF_HUB_OFFLINE
    try:
        huggingface_hub.dataset_info(hub_id, timeout=PROBE_SECONDS)
    except HfHubHTTPError:
        pass  # the hub answers; loading says what is wrong
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
