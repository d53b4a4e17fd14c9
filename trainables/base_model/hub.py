"""A base model's files from the Hugging Face hub, and what to do where they cannot be had. (no torch)"""

from __future__ import annotations

from pathlib import Path

# Safetensors only: pickled weights can run code. Mistral's `consolidated` files hold the same weights once more.
SMALL_FILES = ["*.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt"]
_WEIGHTS = ["*.safetensors"]
_LEFT_OUT = ["*/*", "consolidated*"]


def hub_snapshot(repo_id: str, revision: str, weights: bool) -> Path:
    """The folder of the repository's configuration and tokenizer, and of its weights where asked for.

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
