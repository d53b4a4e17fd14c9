"""Reads what a base model's files hold, and makes the folder that its weights are loaded from.

`inspect` reads configuration and shapes but no weights (seconds, for the checks before a study starts);
`weights_folder` downloads or converts, so that there is a folder to load.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from trainables.base_model.checks.faults import BaseModelError, ModelFault, raise_any, whole_file
from trainables.base_model.checks.folder_model import folder_configuration, folder_faults
from trainables.base_model.checks.folders import ADAPTER_CONFIG, CONFIG
from trainables.base_model.checks.gguf_model import read_gguf_config
from trainables.base_model.checks.quantization import four_bit_of
from trainables.base_model.checks.rope import MOST_POSITIONS
from trainables.base_model.checks.weight_files import weight_files
from trainables.base_model.families import FAMILIES, with_defaults
from trainables.base_model.gguf import CONVERTER_VERSION, convert_gguf
from trainables.base_model.hub import hub_snapshot
from trainables.base_model.location import ModelFiles, locate
from trainables.base_model.probe.probe import ProbeError, probe
from trainables.base_model.shape import ModelShape
from trainables.settings import BaseModelSettings
from trainables.shown_values import shortened
from trainables.user_cache import CacheEntry, cached_folder, digest, file_sha256

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Built = TypeVar("Built")


@dataclass(frozen=True)
class BaseModelInfo:
    """The facts of a base model that are known without loading it.

    `path` is as the user wrote it. `sha256` is of the weights' files; for a hub id it is the commit's hash, which
    stands for them. `max_positions` is the most tokens of a row.
    """

    path: str
    revision: str | None
    sha256: str
    shape: ModelShape
    max_positions: int


_LOCAL: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}


def weights_folder(files: ModelFiles) -> Path:
    """Returns the folder to load; downloads from the hub or converts the `.gguf` file where that was not done before.

    Raises BaseModelError for a file that cannot be converted, a cache that cannot be written, and weights that are not
    whole.
    """
    if files.kind == "gguf":
        read_gguf_config(Path(files.path))
        try:
            entry = _converted(files)
            return cached_folder(entry.kind, entry.key, lambda folder: convert_gguf(Path(files.path), folder))
        except BaseModelError:
            raise
        except ValueError as error:
            raise BaseModelError(str(error)) from error
        except OSError as error:
            raise BaseModelError(
                f"{files.path} must be converted into the cache folder once, which failed ({error}). "
                "Free space there, or set LORA_FRONTIER_CACHE to another folder."
            ) from error
    folder = _small_files(files, weights=True)
    raise_any(folder_faults(folder, weights=True))
    return folder


def read_values(files: ModelFiles) -> dict[str, Any]:
    """Reads the model's configuration as its files have it, every value checked.

    Raises BaseModelError for what is no dense decoder, in 16 bits or NF4.
    """
    if files.kind == "gguf":
        return read_gguf_config(Path(files.path))
    return _folder_values(files, _small_files(files))


def read_config(files: ModelFiles) -> PretrainedConfig:
    """Builds transformers' configuration of the model. Raises BaseModelError as `read_values`, and as transformers."""
    values = read_values(files)
    from transformers import AutoConfig

    folder = readable_folder(files)
    if folder is not None:
        config = _built(files, lambda: AutoConfig.from_pretrained(str(folder), **_LOCAL))
    else:
        config = _built(files, lambda: AutoConfig.for_model(values.pop("model_type"), **values))
    raise_any(_method_faults(config, files))
    return config


def inspect(settings: BaseModelSettings, weights: bool = True) -> BaseModelInfo:
    """Reads the facts of the model from its files, without loading or downloading weights.

    Without `weights` they need not even be there, and their hash is empty. Raises BaseModelError for a model that
    cannot be trained here, or that cannot be had.
    """
    files = locate(settings)
    if files.kind == "folder":
        raise_any(folder_faults(Path(files.path), weights))
    values = read_values(files)
    shape, positions = _described(values)
    return BaseModelInfo(
        path=settings.path,
        revision=_small_files(files).name if files.kind == "hub" else None,
        sha256=_weights_hash(files) if weights else "",
        shape=replace(shape, four_bit=four_bit_of(values)),
        max_positions=positions,
    )


def _described(values: Mapping[str, Any]) -> tuple[ModelShape, int]:
    """The model's shape, and the most tokens of a row: by its family's form, or else as it was probed.

    Raises BaseModelError where the probe finds no decoder to train.
    """
    try:
        if values["model_type"] not in FAMILIES:
            facts = probe(values)
            return ModelShape.of_facts(facts), facts.max_positions or MOST_POSITIONS
        known = with_defaults(values)
        shape = ModelShape.from_config(known)
        if not shape.family.computes(known):  # through transformers' layers, whose memory no formula knows
            shape = replace(shape, counted=probe(values).counted)
        return shape, known["max_position_embeddings"]
    except ProbeError as error:
        raise BaseModelError(
            f"the base model must be a decoder whose layers are linear; {error}. {error.remedy}"
        ) from error


def _built(files: ModelFiles, build: Callable[[], Built]) -> Built:
    """Returns what transformers builds from a configuration; whatever it raises is a fault of the configuration."""
    try:
        return build()
    except Exception as error:  # KeyError, AssertionError, its own validation errors
        reason = shortened(" ".join(str(error).split()) or type(error).__name__, 300)
        rule = f"must be a configuration that transformers can build ({type(error).__name__})"
        remedy = "Take the model's files from where it was published."
        raise BaseModelError.of([whole_file(_configuration_file(files), reason, rule, remedy)]) from error


def _folder_values(files: ModelFiles, folder: Path) -> dict[str, Any]:
    if files.kind == "hub" and not any((folder / name).exists() for name in (CONFIG, ADAPTER_CONFIG)):
        raise BaseModelError(
            f"a base model must have a config.json; the hub's {files.path} has none, as repositories of GGUF files. "
            "Give the original model's id, or download one .gguf file and give its path."
        )
    return folder_configuration(folder, files.path)


def _method_faults(config: PretrainedConfig, files: ModelFiles) -> list[ModelFault]:
    """Keys of a configuration that hide what transformers' own class does."""
    hidden = [name for name in vars(config) if callable(getattr(type(config), name, None))]
    rule, remedy = "must not be a key: transformers has a method of that name", "Delete the key."
    return [ModelFault(_configuration_file(files), name, vars(config)[name], rule, remedy) for name in hidden]


def _configuration_file(files: ModelFiles) -> str:
    return files.path if files.kind == "gguf" else str(_small_files(files) / CONFIG)


def readable_folder(files: ModelFiles) -> Path | None:
    """Returns the folder with configuration and tokenizer; None for a `.gguf` file that was not converted yet."""
    if files.kind != "gguf":
        return _small_files(files)
    entry = _converted(files)
    return entry.folder if entry.intact() else None


def _small_files(files: ModelFiles, weights: bool = False) -> Path:
    if files.kind != "hub":
        return Path(files.path)
    try:
        return hub_snapshot(files.path, files.revision or "main", weights)
    except ValueError as error:
        raise BaseModelError(str(error)) from error


def _converted(files: ModelFiles) -> CacheEntry:
    key = digest({"sha256": file_sha256(Path(files.path)), "converter": CONVERTER_VERSION})
    return CacheEntry("gguf", key)


def _weights_hash(files: ModelFiles) -> str:
    if files.kind == "hub":
        return _small_files(files).name  # a snapshot's folder is named by its commit
    if files.kind == "gguf":
        return file_sha256(Path(files.path))
    hashes = [(file_sha256(path), path.name) for path in weight_files(Path(files.path))]
    if len(hashes) == 1:
        return hashes[0][0]
    return hashlib.sha256("".join(f"{value}  {name}\n" for value, name in hashes).encode()).hexdigest()
