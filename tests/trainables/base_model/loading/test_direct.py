"""Loading directly gives what transformers' `from_pretrained` gives, bit by bit, or leaves the folder to it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen3Config
from transformers import Qwen3ForCausalLM as Qwen3

from tests.support.places import SHARED
from tests.support.trainables.loaded_models import assert_same
from trainables.base_model import weights
from trainables.base_model.checks.faults import BaseModelError
from trainables.base_model.load import load_base_model
from trainables.base_model.loading.direct import load_directly
from trainables.base_model.loading.placement import Placement
from trainables.settings import BaseModelSettings

MODELS = SHARED / "models"
CPU = torch.device("cpu")
IDS = torch.randint(3, 500, (2, 24), generator=torch.Generator().manual_seed(0))
SIZES: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 512, "max_position_embeddings": 128,
}  # fmt: skip

needs_models = pytest.mark.skipif(not MODELS.is_dir(), reason="needs the models beside the checkout (../shared/models)")


def _theirs(folder: Path, dtype: torch.dtype | str = "auto") -> PreTrainedModel:
    options: dict[str, Any] = {"device_map": {"": "cpu"}, "attn_implementation": "sdpa", "attention_dropout": 0.0}
    return AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype, **options)


def _ours(folder: Path, dtype: torch.dtype | None = None) -> PreTrainedModel:
    model = load_directly(folder, Placement({"": CPU}), dtype)
    assert model is not None
    return model


def _made(folder: Path, model: type[PreTrainedModel], config: Any, **saving: Any) -> Path:
    torch.manual_seed(1)
    model(config).save_pretrained(str(folder), **saving)
    return folder


@needs_models
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["stories260K", "stories15M"])
def test_whole_weights_are_loaded_as_transformers_loads_them(name: str, dtype: torch.dtype) -> None:
    assert_same(_ours(MODELS / name, dtype), _theirs(MODELS / name, dtype))


@needs_models
@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("name", ["stories260K", "stories15M"])
def test_quantized_weights_are_loaded_as_transformers_loads_them(name: str, double: bool, own_cache: Path) -> None:
    load_base_model(BaseModelSettings(str(MODELS / name), double_quantization=double), "nf4", "cpu")
    (folder,) = (path for path in (own_cache / "nf4").iterdir() if path.is_dir())
    assert_same(_ours(folder), _theirs(folder))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("sharded", [True, False])
def test_tied_heads_and_files_in_shards(tied: bool, sharded: bool, tmp_path: Path) -> None:
    saving = {"max_shard_size": "50KB"} if sharded else {}
    folder = _made(tmp_path, LlamaForCausalLM, LlamaConfig(**SIZES, tie_word_embeddings=tied), **saving)
    assert (len(list(folder.glob("*.safetensors"))) > 1) == sharded
    ours = _ours(folder)
    assert_same(ours, _theirs(folder))
    assert (ours.lm_head.weight is ours.model.embed_tokens.weight) == tied


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "linear", "factor": 4.0},
        {"rope_type": "dynamic", "factor": 2.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 32},
    ],
)  # fmt: skip
def test_rotary_frequencies_of_every_kind(rope: dict[str, Any], tmp_path: Path) -> None:
    config = LlamaConfig(**SIZES, rope_parameters={**rope, "rope_theta": 10000.0}, dtype="bfloat16")
    assert_same(_ours(_made(tmp_path, LlamaForCausalLM, config)), _theirs(tmp_path))


@needs_models
def test_quantized_weights_that_are_not_loaded_directly_are_the_same(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_base_model(BaseModelSettings(str(MODELS / "stories260K")), "nf4", "cpu")
    (folder,) = (path for path in (own_cache / "nf4").iterdir() if path.is_dir())
    ours = _ours(folder)
    monkeypatch.setattr(weights, "load_directly", lambda *args: None)
    assert_same(ours, weights.load_weights(folder, Placement({"": "cpu"})))


def test_another_family(tmp_path: Path) -> None:
    assert_same(_ours(_made(tmp_path, Qwen3, Qwen3Config(**SIZES, head_dim=16))), _theirs(tmp_path))


@pytest.mark.parametrize("change", ["another name", "another shape", "one more", "one less"])
def test_what_transformers_would_convert_is_left_to_it(change: str, tmp_path: Path) -> None:
    folder = _made(tmp_path, LlamaForCausalLM, LlamaConfig(**SIZES))
    tensors = load_file(folder / "model.safetensors")
    norm = tensors.pop("model.norm.weight")
    if change == "another shape":
        tensors["model.norm.weight"] = norm[:-1].clone()
    elif change != "one less":
        tensors["norm.weight"] = norm
        if change == "one more":
            tensors["model.norm.weight"] = norm.clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert load_directly(folder, Placement({"": CPU}), torch.float32) is None


def test_a_version_of_transformers_that_builds_otherwise_loads_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: object) -> None:
        raise TypeError("unexpected argument")

    folder = _made(tmp_path, LlamaForCausalLM, LlamaConfig(**SIZES))
    monkeypatch.setattr(weights, "load_directly", fail)
    assert_same(weights.load_weights(folder, Placement({"": "cpu"})), _theirs(folder))
    assert "unexpected argument" in caplog.text


def test_a_truncated_file_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    folder = _made(tmp_path, LlamaForCausalLM, LlamaConfig(**SIZES))
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(BaseModelError, match="truncated"):
        load_directly(folder, Placement({"": CPU}), None)
    shutil.rmtree(folder)
