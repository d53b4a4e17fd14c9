"""Reads what a base model's files hold, and makes the folder that its weights are loaded from.

`inspect` reads configuration and shapes but no weights (seconds, for the checks before a study starts);
`weights_folder` downloads or converts, so that there is a folder to load.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.base_model.gguf import CONVERTER_VERSION, convert_gguf, read_gguf_config, read_gguf_tokenizer
from trainables.base_model.hub import hub_snapshot
from trainables.base_model.location import BaseModelError, ModelFiles, locate, weight_files
from trainables.settings import BaseModelSettings
from trainables.user_cache import CacheEntry, cached_folder, digest, file_sha256

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3", "smollm3")


@dataclass(frozen=True)
class BaseModelInfo:
    """The facts of a base model that are known without loading it.

    `path` is as the user wrote it. `sha256` is of the weights' files; for a hub id it is the commit's hash, which
    stands for them. `linear_modules` are the frozen linear layers' short names (`q_proj`, …), the head left out.
    """

    path: str
    revision: str | None
    sha256: str
    model_type: str
    parameter_count: int
    linear_modules: tuple[str, ...]
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    attention_heads: int
    key_value_heads: int
    head_dim: int
    max_positions: int
    tie_word_embeddings: bool


def weights_folder(files: ModelFiles) -> Path:
    """Returns the folder to load; downloads from the hub or converts the `.gguf` file where that was not done before.

    Raises BaseModelError for a file that cannot be converted, a cache that cannot be written, and missing weights.
    """
    if files.kind == "gguf":
        try:
            entry = _converted(files)
            return cached_folder(entry.kind, entry.key, lambda folder: convert_gguf(Path(files.path), folder))
        except ValueError as error:
            raise BaseModelError(str(error)) from error
        except OSError as error:
            raise BaseModelError(
                f"{files.path} must be converted into the cache folder once, which failed ({error}). "
                "Free space there, or set LORA_FRONTIER_CACHE to another folder."
            ) from error
    folder = _small_files(files, weights=True)
    weight_files(folder)
    return folder


def read_config(files: ModelFiles) -> PretrainedConfig:
    """Reads the model's configuration.

    Raises BaseModelError for what is no dense, unquantized Llama-like causal model.
    """
    from transformers import AutoConfig

    try:
        folder = _readable_folder(files)
        values = read_gguf_config(Path(files.path)) if folder is None else _config_values(folder, files.path)
        _refuse_other_models(values, files.path)
        if folder is not None:
            return AutoConfig.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
        return AutoConfig.for_model(values.pop("model_type"), **values)
    except BaseModelError:
        raise
    except Exception as error:  # transformers' own validation raises several kinds
        reason = " ".join(str(error).split())
        raise BaseModelError(f"the configuration of {files.path} must be valid; it is not: {reason}") from error


def load_tokenizer(settings: BaseModelSettings) -> PreTrainedTokenizerBase:
    """Reads the base model's own tokenizer. Raises BaseModelError where there is none."""
    from transformers import AutoTokenizer

    files = locate(settings)
    try:
        folder = _readable_folder(files)
        if folder is None:
            return read_gguf_tokenizer(Path(files.path))
        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except BaseModelError:
        raise
    except Exception as error:  # the tokenizers library raises plain Exception
        raise BaseModelError(
            f"the base model {settings.path!r} must have a tokenizer beside it (tokenizer.json); it cannot be read: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}. Copy the model's tokenizer there."
        ) from error


def inspect(settings: BaseModelSettings, weights: bool = True) -> BaseModelInfo:
    """Reads the facts of the model from its files, without loading or downloading weights.

    Without `weights` they need not even be there, and their hash is empty. Raises BaseModelError for a model that
    cannot be trained here, or that cannot be had.
    """
    files = locate(settings)
    config = read_config(files)
    parameter_count, linear_modules = _shapes(config)
    heads = config.num_attention_heads
    return BaseModelInfo(
        path=settings.path,
        revision=_small_files(files).name if files.kind == "hub" else None,
        sha256=_weights_hash(files) if weights else "",
        model_type=config.model_type,
        parameter_count=parameter_count,
        linear_modules=linear_modules,
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        layers=config.num_hidden_layers,
        attention_heads=heads,
        key_value_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        max_positions=config.max_position_embeddings,
        tie_word_embeddings=bool(config.tie_word_embeddings),
    )


def _shapes(config: PretrainedConfig) -> tuple[int, tuple[str, ...]]:
    """Counts parameters (tied ones once) and lists the linear layers' short names, of a model without memory."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    linear = [name for name, module in model.base_model.named_modules() if isinstance(module, torch.nn.Linear)]
    names = dict.fromkeys(name.rsplit(".", 1)[-1] for name in linear)
    return sum(parameter.numel() for parameter in model.parameters()), tuple(names)


def _readable_folder(files: ModelFiles) -> Path | None:
    """Returns the folder with configuration and tokenizer; None for a `.gguf` file that was not converted yet."""
    if files.kind != "gguf":
        return _small_files(files)
    entry = _converted(files)
    return entry.folder if entry.intact() else None


def _config_values(folder: Path, name: str) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise BaseModelError(f"a base model must have a config.json; {name} has none. Choose a causal model.")
    values = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError("config.json is no mapping")
    return values


def _refuse_other_models(values: dict[str, Any], path: str) -> None:
    kind = values.get("model_type")
    if kind not in MODEL_TYPES:
        raise BaseModelError(
            f"the base model must be a Llama-like causal model ({', '.join(MODEL_TYPES)}); {path} is of the type "
            f"{kind!r}. Choose another model."
        )
    architectures = values.get("architectures") or ["ForCausalLM"]
    if not any(str(name).endswith("ForCausalLM") for name in architectures):
        raise BaseModelError(f"the base model must be a causal language model; {path} is a {architectures[0]}.")
    if values.get("quantization_config"):
        method = values["quantization_config"].get("quant_method", "unknown")
        raise BaseModelError(
            f"the base model's weights must not be quantized already; {path} is ({method}). Give the original weights: "
            "precision nf4 quantizes them."
        )


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
