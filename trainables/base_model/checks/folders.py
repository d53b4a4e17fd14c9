"""Tells what a folder is that holds no model to train, and what to give in its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainables.base_model.checks.contents import CONVERT, PICKLED_ENDINGS, file_fault, refused
from trainables.base_model.checks.faults import ModelFault, whole_file
from trainables.guarded_files import FileRefusedError, read_json
from trainables.shown_values import shortened

CONFIG, ADAPTER_CONFIG = "config.json", "adapter_config.json"
MOST_CONFIG_BYTES = 2**20
SHOWN_FILES = 3
RULE = "must be a model's folder: config.json, tokenizer and safetensors"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def folder_fault(folder: Path) -> ModelFault | None:
    """Returns why a folder is no model's; None where it has a config.json, and is no adapter's.

    An adapter's folder is refused beside a config.json too: transformers would load the base that the adapter names.
    """
    names = _names(folder)
    if ADAPTER_CONFIG in names:
        return _adapter(folder)
    if "model_index.json" in names:
        return whole_file(
            folder, "a diffusers pipeline", RULE, "Choose a language model; a pipeline has none to train."
        )
    if "modules.json" in names and "config_sentence_transformers.json" in names:
        return whole_file(folder, "a sentence-transformers model", RULE, "Choose a causal language model.")
    if CONFIG in names:
        return None
    return next((fault for look in _LOOKS if (fault := look(folder, names))), None) or _nothing_known(folder, names)


def read_configuration(folder: Path) -> dict[str, Any] | ModelFault:
    """Reads the folder's config.json; returns the fault where it is no mapping of names to values."""
    path = folder / CONFIG
    rule = "must be the model's configuration, a mapping in JSON"
    if fault := file_fault(path, rule):
        return fault
    try:
        values = read_json(path, MOST_CONFIG_BYTES)
    except FileRefusedError as error:
        return refused(path, error, "Download config.json again.")
    if not isinstance(values, dict):
        return whole_file(path, f"a {type(values).__name__}", rule, "Download config.json again.")
    return values


def generation_fault(folder: Path) -> ModelFault | None:
    """Returns what is wrong with the folder's generation_config.json; None where there is none."""
    path = folder / "generation_config.json"
    if not path.exists():
        return None
    try:
        values = read_json(path, MOST_CONFIG_BYTES)
    except FileRefusedError as error:
        return refused(path, error, "Download it again, or delete it.")
    except OSError as error:
        rule = "must be a mapping in JSON"
        return whole_file(path, f"cannot be read ({error.strerror})", rule, "Make it readable, or delete it.")
    if isinstance(values, dict):
        return None
    return whole_file(
        path, f"a {type(values).__name__}", "must be a mapping in JSON", "Download it again, or delete it."
    )


def tokenizer_fault(folder: Path) -> ModelFault | None:
    """Returns the fault of a folder without any tokenizer; None where one is there."""
    if any((folder / name).exists() for name in TOKENIZER_FILES):
        return None
    rule = "must hold the model's tokenizer (tokenizer.json, or tokenizer.model)"
    return whole_file(folder, "no tokenizer", rule, "Copy the tokenizer's files from where the model was published.")


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError:
        return []


def _adapter(folder: Path) -> ModelFault:
    """An adapter's folder; the base that it names is what to give."""
    try:
        values = read_json(folder / ADAPTER_CONFIG, MOST_CONFIG_BYTES)
        base = values.get("base_model_name_or_path")
    except (ValueError, OSError, AttributeError):
        base = None
    named = isinstance(base, str) and bool(base.strip())
    remedy = f"Give the base that it names: {shortened(str(base))}." if named else "Give the base it was trained on."
    found = "an adapter (adapter_config.json), which is no model by itself"
    return whole_file(folder, found, RULE, f"{remedy} To train on from the adapter, merge it into its base first.")


def _gguf(folder: Path, names: list[str]) -> ModelFault | None:
    files = [name for name in names if name.lower().endswith(".gguf")]
    if len(files) == 1:
        return whole_file(folder, "a folder with one GGUF file", RULE, f"Give the file: {folder / files[0]}")
    if not files:
        return None
    shown = ", ".join(map(shortened, files[:SHOWN_FILES])) + (", …" if len(files) > SHOWN_FILES else "")
    return whole_file(folder, f"a folder with {len(files)} GGUF files", RULE, f"Give one of the files: {shown}")


def _study(folder: Path, names: list[str]) -> ModelFault | None:
    if "results.jsonl" not in names or "study.yaml" not in names:
        return None
    remedy = "Export a trial of it first: python -m study export DIRECTORY TRIAL --merge --to FOLDER"
    return whole_file(folder, "a study's directory", RULE, remedy)


def _below(folder: Path, names: list[str]) -> ModelFault | None:
    """A folder around the model's: of the hub's cache, of a trainer's checkpoints, or of one more download."""
    inner = [path.parent for path in sorted(folder.glob(f"*/{CONFIG}")) + sorted(folder.glob(f"snapshots/*/{CONFIG}"))]
    if not inner:
        return None
    return whole_file(folder, "a folder around a model's", RULE, f"Give the folder below: {inner[-1]}")


def _pickled(folder: Path, names: list[str]) -> ModelFault | None:
    files = [name for name in names if name.lower().endswith(PICKLED_ENDINGS)]
    if not files:
        return None
    what = "Meta's own form of a Llama" if "params.json" in names else "pickled weights without a config.json"
    return whole_file(folder, f"{what} ({shortened(files[0])})", RULE, CONVERT)


def _other_format(folder: Path, names: list[str]) -> ModelFault | None:
    kinds = {".onnx": "an ONNX model", ".h5": "a TensorFlow model", ".msgpack": "a Flax model", ".npz": "an MLX model"}
    kind = next((words for ending, words in kinds.items() if any(name.endswith(ending) for name in names)), None)
    if kind is None:
        return None
    return whole_file(folder, kind, RULE, "Give the original model as transformers saves it.")


def _weights_alone(folder: Path, names: list[str]) -> ModelFault | None:
    if not any(name.endswith(".safetensors") for name in names):
        return None
    return whole_file(folder, "weights without a config.json", RULE, "Download the model completely.")


def _nothing_known(folder: Path, names: list[str]) -> ModelFault:
    found = f"a folder without config.json ({', '.join(map(shortened, names[:SHOWN_FILES]))})" if names else "empty"
    remedy = "Check the path's spelling; relative paths start at the study file's folder."
    return whole_file(folder, found, RULE, remedy)


_LOOKS: tuple[Callable[[Path, list[str]], ModelFault | None], ...] = (
    _gguf, _study, _below, _pickled, _other_format, _weights_alone,
)  # fmt: skip
