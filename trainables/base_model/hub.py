"""Fetches a base model's files from the Hugging Face hub, and finds the name of its licence.

An export's model card names the licence. A folder and a `.gguf` file may name it without the hub.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from trainables.base_model.checks.gguf_model import gguf_licence
from trainables.base_model.location import ModelFiles
from trainables.guarded_files import FileRefusedError, read_bytes

# Safetensors only: pickled weights can run code. Mistral's `consolidated` files hold the same weights once more.
SMALL_FILES = ["*.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt"]
_WEIGHTS = ["*.safetensors"]
MOST_CARD_BYTES, LONGEST_LICENCE = 2**20, 100
_LEFT_OUT = ["*/*", "consolidated*"]


def hub_snapshot(repo_id: str, revision: str, weights: bool) -> Path:
    """Returns the folder of the repository's configuration and tokenizer, and of its weights where asked for.

    What is already in the hub's own cache is not fetched again. Raises ValueError (rule, value, remedy) for a gated
    model, a model or revision that is not there, and a hub that cannot be reached.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            repo_id,
            revision=revision,
            allow_patterns=SMALL_FILES + (_WEIGHTS if weights else []),
            ignore_patterns=_LEFT_OUT,
        )
    except Exception as error:
        raise ValueError(_remedy(error, repo_id, revision)) from error
    return Path(folder)


def base_licence(files: ModelFiles) -> str | None:
    """Returns the name of a base model's licence, for example `apache-2.0`.

    The hub is asked for its model card; a folder names it in its README.md, or by its licence file; a `.gguf` file in
    its metadata. None where nothing names one, or the hub cannot be asked.
    """
    if files.kind == "gguf":
        named = gguf_licence(Path(files.path))
        return _one_line(named) if named else None
    return _hub_licence(files) if files.kind == "hub" else _folder_licence(Path(files.path))


def _hub_licence(files: ModelFiles) -> str | None:
    from huggingface_hub import HfApi

    try:
        card = HfApi().model_info(files.path, revision=files.revision, timeout=10).card_data
    except Exception:  # offline, gated or removed: the model card then says that the licence is not known
        return None
    licence = getattr(card, "license_name", None) or getattr(card, "license", None)
    return str(licence) if licence else None


def _folder_licence(folder: Path) -> str | None:
    """Reads the licence from the front matter of the folder's README.md; without one, the licence file's name."""
    card = folder / "README.md"
    if card.is_file():
        parts = _text(card).split("---", 2)
        named = _front_matter(parts[1]).get("license") if len(parts) == 3 and not parts[0].strip() else None
        if isinstance(named, str) and named.strip():  # not what it may be else: a list of aliases can be endless
            return _one_line(named)
    return next((file.name for file in sorted(folder.glob("LICENSE*"))), None)


def _text(card: Path) -> str:
    try:
        return read_bytes(card, MOST_CARD_BYTES).decode("utf-8", errors="replace")
    except (OSError, FileRefusedError):
        return ""


def _one_line(licence: str) -> str:
    return " ".join(licence.split())[:LONGEST_LICENCE]


def _front_matter(text: str) -> dict[str, object]:
    try:
        values = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _remedy(error: Exception, repo_id: str, revision: str) -> str:
    from huggingface_hub import errors

    page = f"https://huggingface.co/{repo_id}"
    if isinstance(error, errors.GatedRepoError):  # before its parent, the repository that is not found
        return (
            f"the base model {repo_id!r} is gated: request access on its page, {page}, then set HF_TOKEN to a token of "
            "your account (https://huggingface.co/settings/tokens)."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"base_model.revision must be a branch, tag or commit of {repo_id!r}; {revision!r} is none. See {page}."
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        return (
            f"base_model.path must be a hub id, a local folder, a .gguf file or package:NAME/FILE; the hub has no "
            f"{repo_id!r}. Check the spelling; for a private model set HF_TOKEN."
        )
    if isinstance(error, errors.LocalEntryNotFoundError | ConnectionError | TimeoutError):
        return (
            f"the base model {repo_id!r} is not on this machine and the hub cannot be reached (offline, or "
            "HF_HUB_OFFLINE is set). Connect, or give a local folder or a .gguf file as base_model.path."
        )
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return f"the base model {repo_id!r} could not be fetched from the hub: {reason}. Try again later, or see {page}."
