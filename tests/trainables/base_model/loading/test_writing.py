"""What is written by several threads is what transformers' `save_pretrained` writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from trainables.base_model.checks.safetensors_header import read_header
from trainables.base_model.loading import writing
from trainables.base_model.loading.placement import Placement
from trainables.base_model.weights import load_weights


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("piece", [100, 2**23])
def test_a_quantized_model_is_written_as_transformers_writes_it(
    tied: bool, double: bool, piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, vocab_size=512,
        tie_word_embeddings=tied,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "plain")
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=double,
        bnb_4bit_compute_dtype="bfloat16",
    )
    model = load_weights(tmp_path / "plain", Placement({"": "cpu"}), torch.bfloat16, quantization)
    monkeypatch.setattr(writing, "PIECE_BYTES", piece)
    (tmp_path / "ours").mkdir()
    writing.write_model(model, tmp_path / "ours")
    model.save_pretrained(tmp_path / "theirs")
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "theirs"))
    assert ours.keys() == theirs.keys()
    assert all(
        torch.equal(tensor, theirs[name]) and tensor.dtype == theirs[name].dtype for name, tensor in ours.items()
    )
    read_header(tmp_path / "ours" / "model.safetensors")  # no holes, no overlaps
    for name in ("config.json", "generation_config.json"):
        one, other = (json.loads((tmp_path / folder / name).read_text()) for folder in ("ours", "theirs"))
        assert one == other


def test_tensors_without_numbers_and_without_dimensions(tmp_path: Path) -> None:
    tensors = {"none": torch.zeros(0, 3), "one": torch.tensor(2.5), "bytes": torch.arange(5, dtype=torch.uint8)}
    writing.write_tensors(tensors, tmp_path / "a.safetensors")
    read = load_file(tmp_path / "a.safetensors")
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
