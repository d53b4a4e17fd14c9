"""Loading the base model: precisions, the compute type, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from tests.support.places import SHARED
from trainables.base_model import load
from trainables.base_model.checks.faults import BaseModelError
from trainables.base_model.load import compute_dtype, load_base_model
from trainables.base_model.loading.placement import Placement
from trainables.base_model.weights import load_weights
from trainables.settings import BaseModelSettings

MODELS = SHARED / "models"
CPU = torch.device("cpu")
IDS = torch.randint(3, 500, (2, 24), generator=torch.Generator().manual_seed(0))

pytestmark = pytest.mark.skipif(not MODELS.is_dir(), reason="needs the models beside the checkout (../shared/models)")


def _settings(name: str = "stories260K", double_quantization: bool = True) -> BaseModelSettings:
    return BaseModelSettings(str(MODELS / name), double_quantization=double_quantization)


def _logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_weights_are_frozen_and_of_the_precision(precision: str, dtype: torch.dtype) -> None:
    base = load_base_model(_settings(), precision, "cpu")
    matrices = [parameter for parameter in base.model.parameters() if parameter.ndim == 2]
    assert {parameter.dtype for parameter in matrices} == {dtype}
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert (base.compute_dtype, base.device, base.precision) == (compute_dtype(precision, CPU), CPU, precision)
    with torch.no_grad():
        assert base.model.get_decoder()(IDS).last_hidden_state.dtype == base.compute_dtype
    assert base.model.config._attn_implementation == "sdpa"
    assert base.model.config.use_cache is False
    assert sum(parameter.numel() for parameter in base.model.parameters()) == base.info.shape.parameter_count
    weights = load_file(MODELS / "stories260K" / "model.safetensors")
    for name, parameter in base.model.state_dict().items():
        if name in weights:
            assert torch.equal(parameter, weights[name].to(dtype).to(parameter.dtype)), name


def test_refusals_come_before_loading() -> None:
    with pytest.raises(BaseModelError, match="fp16 needs a GPU"):
        load_base_model(_settings(), "fp16", "cpu")


def test_the_compute_type_follows_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "some card")
    for capability, expected in (((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        assert compute_dtype("nf4", torch.device("cuda")) == expected
    for multiplies, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(load, "cpu_multiplies_bf16", lambda there=multiplies: there)
        assert compute_dtype("nf4", CPU) == compute_dtype("bf16", CPU) == expected
        assert compute_dtype("fp32", CPU) == torch.float32


@pytest.mark.parametrize("precision", ["fp32", "nf4"])
def test_a_base_models_own_dropout_is_off_in_training(precision: str, tmp_path: Path) -> None:
    """Bit-equal logits in training mode and in eval mode, for a configuration that asks for attention dropout."""
    (tmp_path / "model").mkdir()
    for file in (MODELS / "stories260K").iterdir():
        shutil.copyfile(file, tmp_path / "model" / file.name)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.5}))
    for _ in range(2):  # NF4: quantized, and from the cache
        model = load_base_model(BaseModelSettings(str(tmp_path / "model")), precision, "cpu").model
        expected = _logits(model)
        with torch.no_grad():
            assert torch.equal(model.train()(IDS).logits, expected)


def test_incomplete_or_broken_weights_are_refused(tmp_path: Path) -> None:
    config = LlamaConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=32
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    weights = load_file(file)
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    settings = BaseModelSettings(str(tmp_path / "model"))
    with pytest.raises(BaseModelError, match=r"'?model\.layers\.0\.mlp\.up_proj\.weight.*one tensor is missing"):
        load_base_model(settings, "fp32", "cpu")
    with pytest.raises(BaseModelError, match=r"lacks 1 of them, such as 'model\.layers\.0\.mlp\.up_proj\.weight'"):
        load_weights(tmp_path / "model", Placement({"": "cpu"}))  # as of the cache, which nothing has checked
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(BaseModelError, match=r"truncated: .* Download it again, to its end"):
        load_base_model(settings, "fp32", "cpu")
    with pytest.raises(BaseModelError, match=r"truncated: .* Download it again, to its end"):
        load_weights(tmp_path / "model", Placement({"": "cpu"}))
