"""Folders of a base model that can be inspected and not used: a configuration, and weights that are all the same."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainables.base_model.checks.tensors import HEAD, PREFIX, needed_tensors

LLAMA = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 16, "intermediate_size": 24,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 50,
    "max_position_embeddings": 64, "tie_word_embeddings": False,
}  # fmt: skip


def config_folder(path: Path, **changes: Any) -> Path:
    """Makes the folder of a small Llama; `changes` are of its configuration, and not of its weights."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps({**LLAMA, **changes}))
    write_weights(path / "model.safetensors", llama_shapes())
    return path


def llama_shapes() -> dict[str, tuple[int, ...]]:
    """The shapes of the small Llama's tensors by their names in a file."""
    shapes = needed_tensors(LLAMA).shapes
    return {name if name == HEAD else PREFIX + name: shape for name, shape in shapes.items()}


def write_weights(file: Path, shapes: Mapping[str, tuple[int, ...]], byte: bytes = b"\0", dtype: str = "F16") -> None:
    """Writes a safetensors file of these shapes, all of 16-bit numbers and each byte the same."""
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    write_safetensors(file, header, byte * end)


def write_safetensors(file: Path, header: Any, data: bytes) -> None:
    """Writes a file with this header, whatever it is, and these bytes behind it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)
