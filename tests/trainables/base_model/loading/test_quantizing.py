"""Quantizing while reading gives what transformers and bitsandbytes give, bit by bit, and holds one layer at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from tests.support.made_up_studies import save_tiny_model
from tests.support.places import ROOT
from tests.support.trainables.loaded_models import assert_same
from trainables.base_model.loading import direct
from trainables.base_model.loading.direct import quantize_directly
from trainables.base_model.loading.placement import Placement

CPU = torch.device("cpu")
SIZES: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 512, "max_position_embeddings": 128,
}  # fmt: skip


def _quantization(double: bool, compute: torch.dtype) -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=double,
        bnb_4bit_compute_dtype=compute,
    )


def _made(folder: Path, model: PreTrainedModel, dtype: torch.dtype = torch.float32, **saving: Any) -> Path:
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():  # biases too, which would be zeros
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    model.to(dtype).save_pretrained(str(folder), **saving)
    return folder


def _assert_as_transformers(folder: Path, double: bool, compute: torch.dtype) -> PreTrainedModel:
    ours = quantize_directly(folder, Placement({"": CPU}), compute, _quantization(double, compute))
    assert ours is not None
    options: dict[str, Any] = {"device_map": {"": "cpu"}, "attn_implementation": "sdpa", "dtype": compute}
    quantization = _quantization(double, compute)
    theirs = AutoModelForCausalLM.from_pretrained(str(folder), quantization_config=quantization, **options)
    one, other = ours.state_dict(), theirs.state_dict()
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype, name
        assert torch.equal(tensor, other[name]), name
    assert_same(ours, theirs)
    return ours


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("source", [torch.float32, torch.bfloat16, torch.float16])
def test_every_type_of_weights(source: torch.dtype, compute: torch.dtype, double: bool, tmp_path: Path) -> None:
    _assert_as_transformers(_made(tmp_path, LlamaForCausalLM(LlamaConfig(**SIZES)), source), double, compute)


@pytest.mark.parametrize("sharded", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_heads_biases_and_shards(tied: bool, sharded: bool, tmp_path: Path) -> None:
    saving = {"max_shard_size": "50KB"} if sharded else {}
    model = Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=tied))
    ours = _assert_as_transformers(_made(tmp_path, model, torch.bfloat16, **saving), True, torch.bfloat16)
    assert type(ours.lm_head) is torch.nn.Linear
    assert (ours.lm_head.weight is ours.model.embed_tokens.weight) == tied
    assert ours.model.layers[0].self_attn.q_proj.bias.abs().sum() > 0


def test_an_embedding_that_scales_what_it_returns(tmp_path: Path) -> None:
    model = Gemma3ForCausalLM(Gemma3TextConfig(**SIZES, head_dim=16, layer_types=["full_attention"] * 3))
    ours = _assert_as_transformers(_made(tmp_path, model, torch.bfloat16), True, torch.bfloat16)
    assert ours.model.embed_tokens.embed_scale == 8.0


def test_no_more_than_one_layer_is_there_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _made(tmp_path, LlamaForCausalLM(LlamaConfig(**SIZES)))
    held: list[set[str]] = []
    read = direct._read

    def noting(headers: Any, *others: Any) -> Any:
        held.append({name for header in headers.values() for name in header})
        return read(headers, *others)

    monkeypatch.setattr(direct, "_read", noting)
    assert (
        quantize_directly(folder, Placement({"": CPU}), torch.float32, _quantization(True, torch.float32)) is not None
    )
    whole, *layers = held
    assert [len(names) for names in layers] == [7, 7, 7]
    assert all(len({name.split(".")[2] for name in names}) == 1 for names in layers)
    assert not any("_proj" in name for name in whole)


def test_files_with_other_tensors_are_left_to_transformers(tmp_path: Path) -> None:
    folder = _made(tmp_path, LlamaForCausalLM(LlamaConfig(**SIZES)))
    tensors = load_file(folder / "model.safetensors")
    tensors["norm.weight"] = tensors.pop("model.norm.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert quantize_directly(folder, Placement({"": CPU}), torch.float32, _quantization(True, torch.float32)) is None


# Imports as a host does, loads in NF4, and prints what was imported in doing so and what is the process' own memory.
PROBE = """
import json, sys
from trainables.base_model import lean_imports
lean_imports.import_libraries()
lean_imports.import_quantization()
import trainables.base_model.load, trainables.dataset.prepared, trainables.engine.engine
from trainables.settings import BaseModelSettings
before = set(sys.modules)
base = trainables.base_model.load.load_base_model(BaseModelSettings(sys.argv[1]), "nf4", "cpu")
imported = sorted(set(sys.modules) - before)
own = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))
print(json.dumps([imported, own]))
"""


def test_who_quantizes_imports_and_holds_no_more_than_who_reads_the_cache(tmp_path: Path) -> None:
    """Own memory within 8 MiB: measured 3 MiB; quantizing by transformers left 70 MiB."""
    folder = save_tiny_model(tmp_path / "model")
    environment = {**os.environ, "LORA_FRONTIER_CACHE": str(tmp_path / "cache")}
    told = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", PROBE, str(folder)], cwd=ROOT, env=environment,
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        told.append(json.loads(done.stdout.splitlines()[-1]))
    (first, first_kib), (second, second_kib) = told
    assert first == second
    assert abs(first_kib - second_kib) < 8 * 1024
