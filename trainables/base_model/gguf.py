"""Converts a `.gguf` file into a folder of safetensors, with its configuration and tokenizer.

The weights are written in bfloat16, whatever the file's own blocks: that is what Llama-like models are published
in, and every precision then starts from the same numbers, so that comparing two compares their arithmetic alone.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.base_model.checks.gguf_model import module_name
from trainables.base_model.checks.gguf_model import read_gguf_config as read_gguf_config

if TYPE_CHECKING:
    import numpy as np
    import torch

CONVERTER_VERSION = 1  # part of the cache's key: raise it when the converted files change
SHARD_BYTES = 2 * 2**30

_INTERLEAVED = ("llama", "mistral")  # whose query and key weights llama.cpp stores with their rotary halves interleaved


def convert_gguf(path: Path, folder: Path) -> None:
    """Writes the file's model into `folder`: bfloat16 safetensors, `config.json` and the tokenizer.

    Raises BaseModelError as `read_gguf_config` does.
    """
    config = read_gguf_config(path)
    reader = _open(path)
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    _write_shards(_tensors(reader, config), folder)
    read_gguf_tokenizer(path).save_pretrained(str(folder))


def read_gguf_tokenizer(path: Path) -> Any:
    """Reads the file's own tokenizer, with its special tokens and chat template."""
    from transformers import PreTrainedTokenizerFast

    # Not AutoTokenizer: it reads the whole configuration once more, for the same result in ten times the time.
    return PreTrainedTokenizerFast.from_pretrained(str(path.parent), gguf_file=path.name)


def _open(path: Path) -> Any:
    try:
        return _skimming_reader()(str(path))
    except (ValueError, IndexError, KeyError, OverflowError, struct.error) as error:
        raise ValueError(
            f"{path} must be a whole GGUF file; it cannot be read ({error}). Download it again."
        ) from error


def _skimming_reader() -> Any:
    """Returns gguf's reader, except that it passes over arrays' items (a tokenizer's 100,000 texts) unread."""
    import gguf

    kinds, scalars = gguf.GGUFValueType, gguf.GGUFReader.gguf_scalar_to_np

    class SkimmingReader(gguf.GGUFReader):
        def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
            if raw_type != kinds.ARRAY or self.byte_order == "S":
                return super()._get_field_parts(orig_offs, raw_type)
            item, count = struct.unpack_from("<IQ", self.data, orig_offs)
            begin = end = orig_offs + struct.calcsize("<IQ")
            if item == kinds.STRING:
                for _ in range(count):
                    end += 8 + struct.unpack_from("<Q", self.data, end)[0]
            elif kinds(item) in scalars:
                end += count * scalars[kinds(item)]().itemsize
            else:
                return super()._get_field_parts(orig_offs, raw_type)
            return end - orig_offs, [self.data[orig_offs:begin]], [], [kinds.ARRAY, kinds(item)]

    return SkimmingReader


def _tensors(reader: Any, config: dict[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    import numpy as np
    import torch
    from gguf import dequantize

    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for tensor in reader.tensors:
        values = dequantize(np.asarray(tensor.data), tensor.tensor_type)  # a plain array: memmap's slices are slow
        part = tensor.name.split(".")[-2]
        if config["model_type"] in _INTERLEAVED and part in heads:
            values = _rotary_halves(values, heads[part])
        contiguous = np.array(values, dtype=np.float32)  # a copy: the file is mapped read-only
        yield str(module_name(tensor.name)), torch.from_numpy(contiguous).to(torch.bfloat16)


def _rotary_halves(values: np.ndarray, heads: int) -> np.ndarray:
    """Moves rows paired as (0, 1), (2, 3), … of every head back to the halves that transformers rotates."""
    paired = values.reshape(heads, values.shape[0] // heads // 2, 2, *values.shape[1:])
    return paired.swapaxes(1, 2).reshape(values.shape)


def _write_shards(tensors: Iterator[tuple[str, torch.Tensor]], folder: Path) -> None:
    """Writes the tensors in files of about `SHARD_BYTES`, never holding more than one of them in memory."""
    weight_map: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    total = held = 0
    for name, tensor in tensors:
        if held and held + tensor.nbytes > SHARD_BYTES:
            _write_shard(shard, weight_map, folder)
            shard, held = {}, 0
        shard[name] = tensor
        held += tensor.nbytes
        total += tensor.nbytes
    _write_shard(shard, weight_map, folder)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def _write_shard(shard: dict[str, torch.Tensor], weight_map: dict[str, str], folder: Path) -> None:
    from safetensors.torch import save_file

    name = f"model-{len(set(weight_map.values())) + 1:05d}.safetensors"
    save_file(shard, folder / name, metadata={"format": "pt"})
    weight_map.update(dict.fromkeys(shard, name))
