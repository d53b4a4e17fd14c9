"""A checkpoint in NF4 is loaded as transformers loads it, computes as the study does, and is checked before."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    PreTrainedModel,
    Qwen2Config,
    StableLmConfig,
)
from transformers import Gemma2ForCausalLM as Gemma2
from transformers import Phi3ForCausalLM as Phi3
from transformers import Qwen2ForCausalLM as Qwen2
from transformers import StableLmForCausalLM as StableLm

from tests.support.lora_cases import random_rows
from tests.support.made_up_studies import save_tiny_model
from tests.support.trainables.four_bit_folders import change_quantization, save_four_bit
from tests.support.trainables.loaded_models import assert_same
from tests.support.trainables.packed_cases import gradient, make_member
from trainables.base_model import load, weights
from trainables.base_model.checks.faults import BaseModelError
from trainables.base_model.files import inspect
from trainables.base_model.load import load_base_model
from trainables.base_model.loading.placement import Placement
from trainables.memory.frozen_linears import NF4_TABLES_BYTES
from trainables.memory.setting import PRECISION_OF_DTYPE, MemorySetting
from trainables.memory.weights import ModelPart, base_components
from trainables.packed.packed_model import PackedModel
from trainables.packed.training import accumulate_gradients
from trainables.settings import BaseModelSettings

SIZES: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 512, "max_position_embeddings": 128,
}  # fmt: skip
SKIPPED = ["lm_head", "model.layers.1.self_attn", "model.layers.2.mlp.down_proj"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return save_tiny_model(tmp_path / "source")


def _theirs(folder: Path) -> PreTrainedModel:
    options: dict[str, Any] = {"device_map": {"": "cpu"}, "attn_implementation": None, "dtype": "auto"}
    model = AutoModelForCausalLM.from_pretrained(str(folder), **options)
    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False
    return model


def _layers(model: nn.Module) -> dict[str, type[nn.Module]]:
    return {name: type(module) for name, module in model.named_modules() if isinstance(module, nn.Linear)}


MADE: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "tied, with biases": lambda: Qwen2(Qwen2Config(**SIZES, tie_word_embeddings=True)),
    "scaled embeddings": lambda: Gemma2(Gemma2Config(**SIZES, head_dim=16)),
    "joined": lambda: Phi3(Phi3Config(**SIZES, bos_token_id=1, eos_token_id=2, pad_token_id=0)),
    "without a form": lambda: StableLm(StableLmConfig(**SIZES)),
}


@pytest.mark.parametrize("family", list(MADE))
@pytest.mark.parametrize("skipped", [None, SKIPPED])
@pytest.mark.parametrize("double", [True, False])
@pytest.mark.usefixtures("probed_here")
def test_it_is_loaded_as_transformers_loads_it(
    family: str, skipped: list[str] | None, double: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    MADE[family]().save_pretrained(tmp_path / "source")
    folder = save_four_bit(tmp_path / "source", tmp_path / "nf4", double, skipped=skipped)
    ours = weights.load_weights(folder, Placement({"": "cpu"}), torch.bfloat16)
    assert_same(ours, _theirs(folder))
    four_bit = inspect(BaseModelSettings(str(folder))).shape.four_bit
    assert four_bit is not None
    assert four_bit.double_quantization == double
    assert {name for name, kind in _layers(ours).items() if kind is bitsandbytes.nn.Linear4bit} == {
        name for name in _layers(ours) if four_bit.quantizes(name)
    }


@pytest.mark.parametrize("made_in", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("multiplies_bf16", [True, False])
def test_it_computes_as_the_study_does_and_not_as_its_maker(
    made_in: torch.dtype, multiplies_bf16: bool, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_four_bit(source, tmp_path / "nf4", compute=made_in)
    monkeypatch.setattr(load, "cpu_multiplies_bf16", lambda: multiplies_bf16)
    base = load_base_model(BaseModelSettings(str(folder)), "nf4", "cpu")
    compute = torch.bfloat16 if multiplies_bf16 else torch.float32
    assert base.compute_dtype == compute
    layers = [module for module in base.model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    assert len(layers) == 7 * base.info.shape.layers
    assert {module.compute_dtype for module in layers} == {compute}
    assert {module.weight.quant_state.dtype for module in layers} == {compute}
    assert {parameter.dtype for parameter in base.model.parameters()} == {torch.uint8, compute}
    if made_in == torch.float32 and not multiplies_bf16:
        with torch.no_grad():
            ids = torch.arange(12)[None]
            assert torch.equal(base.model(ids).logits, _theirs(folder)(ids).logits)


def test_it_is_not_quantized_again_nor_kept(source: Path, tmp_path: Path, own_cache: Path) -> None:
    load_base_model(BaseModelSettings(str(save_four_bit(source, tmp_path / "nf4"))), "nf4", "cpu")
    assert not (own_cache / "nf4").exists()


def test_shards_and_an_early_configuration(source: Path, tmp_path: Path) -> None:
    folder = save_four_bit(source, tmp_path / "nf4", max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    whole = load_base_model(BaseModelSettings(str(folder)), "nf4", "cpu")
    change_quantization(folder, quant_method=None, _load_in_4bit=None, _load_in_8bit=None, bnb_4bit_quant_storage=None)
    early = load_base_model(BaseModelSettings(str(folder)), "nf4", "cpu")
    ids = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.equal(early.model(ids).logits, whole.model(ids).logits)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_another_precision_is_refused(precision: str, source: Path, tmp_path: Path) -> None:
    folder = save_four_bit(source, tmp_path / "nf4", skipped=SKIPPED)
    message = r"must be nf4, as .* is quantized already \(NF4 with double .*, 2 modules left in 16 bits\), not"
    with pytest.raises(BaseModelError, match=message):
        load_base_model(BaseModelSettings(str(folder)), precision, "cpu")


@pytest.mark.parametrize("kind", ["fp4", "int8"])
def test_others_of_bitsandbytes_are_refused(kind: str, source: Path, tmp_path: Path) -> None:
    folder = save_four_bit(source, tmp_path / "made", kind="fp4" if kind == "fp4" else "nf4")
    if kind == "int8":
        change_quantization(folder, load_in_4bit=False, load_in_8bit=True)
    with pytest.raises(BaseModelError, match=rf"is \({kind.upper() if kind == 'fp4' else kind} of bitsandbytes\)"):
        inspect(BaseModelSettings(str(folder)))


Tensors = dict[str, torch.Tensor]
FIRST = "model.layers.0.self_attn.q_proj.weight"
STATE = f"{FIRST}.quant_state.bitsandbytes__nf4"


def _said(**changes: Any) -> Callable[[Tensors], Any]:
    def change(tensors: Tensors) -> None:
        values = {**json.loads(bytes(tensors[STATE].tolist())), **changes}
        tensors[STATE] = torch.tensor(list(json.dumps(values).encode()), dtype=torch.uint8)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(f"{FIRST}.absmax"), "missing.: must have absmax as U8 of"),
        (lambda t: t.update({f"{FIRST}.absmax": t[f"{FIRST}.absmax"].float()}), "absmax: F32 of .* as U8"),
        (lambda t: t.pop(f"{FIRST}.nested_absmax"), "missing.: must have nested_absmax as F32"),
        (lambda t: t.pop(f"{FIRST}.nested_quant_map"), "missing.: must have nested_quant_map as F32 of 256"),
        (lambda t: t.update({f"{FIRST}.quant_map": torch.ones(15)}), "must have quant_map as F32 of 16"),
        (lambda t: t.update({FIRST: t[FIRST].flatten()}), "must have weight as U8 of .* x 1"),
        (lambda t: t.update({FIRST: t[FIRST][:-1].clone()}), "must have weight as U8 of .* x 1"),
        (lambda t: t.update({f"{FIRST}.SCB": torch.ones(3)}), "SCB.*no other tensors beside it"),
        (lambda t: [t.pop(name) for name in list(t) if name.startswith(FIRST)], "must be there, as config.json asks"),
        (lambda t: [t.pop(name) for name in list(t) if name.startswith(f"{FIRST}.")], "must be quantized, as"),
        (lambda t: t.update({STATE: torch.zeros(0, dtype=torch.uint8)}), "must be a short text"),
        (lambda t: t.update({STATE: torch.full((9,), 200, dtype=torch.uint8)}), "as a JSON mapping"),
        (_said(blocksize=128), "blocksize must be 64"),
        (_said(quant_type="fp4"), "quant_type must be nf4"),
        (_said(shape=[1, 2]), "shape must be"),
        (_said(dtype="int8"), "dtype must be one of float16"),
        (_said(nested_offset="much"), "nested_offset must be a finite number"),
        (_said(nested_blocksize=64), "nested_blocksize must be 256"),
        (_said(other=1), "no other key than NF4's"),
    ],
)  # fmt: skip
def test_tensors_that_config_does_not_ask_for_are_refused(
    change: Callable[[Tensors], Any], message: str, source: Path, tmp_path: Path
) -> None:
    folder = save_four_bit(source, tmp_path / "nf4")
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BaseModelError, match=message) as caught:
        inspect(BaseModelSettings(str(folder)))
    assert len(caught.value.faults) == 1


@pytest.mark.parametrize(
    ("skipped", "message"),
    [(["lm_head", "q_proj"], "must be left whole, as"), (None, "must be quantized, as no name in")],
)
def test_modules_that_were_skipped_otherwise_are_refused(
    skipped: list[str] | None, message: str, source: Path, tmp_path: Path
) -> None:
    folder = save_four_bit(source, tmp_path / "nf4", skipped=None if skipped else ["lm_head", "k_proj"])
    change_quantization(folder, llm_int8_skip_modules=skipped or ["lm_head"])
    with pytest.raises(BaseModelError, match=message):
        inspect(BaseModelSettings(str(folder)))


def test_another_double_quantization_than_its_tensors_is_refused(source: Path, tmp_path: Path) -> None:
    folder = change_quantization(save_four_bit(source, tmp_path / "nf4"), bnb_4bit_use_double_quant=False)
    with pytest.raises(BaseModelError, match=r"must have absmax as F32 of .* without double quantization"):
        inspect(BaseModelSettings(str(folder)))


def test_a_quantized_head_is_refused(source: Path, tmp_path: Path) -> None:
    folder = save_four_bit(source, tmp_path / "nf4", skipped=["k_proj"])
    with pytest.raises(BaseModelError, match=r"lm_head\.weight.*only linear weights within layers may be"):
        inspect(BaseModelSettings(str(folder)))


def test_a_pack_over_it_trains_as_over_the_weights_that_it_stands_for(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fp32, modules of one group quantized and whole: losses and gradients of all targets within 1e-5 relative."""
    monkeypatch.setattr(load, "cpu_multiplies_bf16", lambda: False)
    folder = save_four_bit(source, tmp_path / "nf4", skipped=["lm_head", "k_proj", "model.layers.1.mlp.up_proj"])
    quantized, whole = (load_base_model(BaseModelSettings(str(folder)), "nf4", "cpu").model for _ in range(2))
    for name, module in list(whole.named_modules()):
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            plain = nn.Linear(module.in_features, module.out_features, bias=False)
            weight = bitsandbytes.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
            plain.weight = nn.Parameter(weight, requires_grad=False)
            whole.set_submodule(name, plain)
    rows = random_rows(12, longest=16)
    losses, gradients = [], []
    for model in (PackedModel(quantized), PackedModel(whole)):
        members = [make_member(model, rows, number, steps=2, lora_dropout=0.0) for number in (1, 3, 5)]
        for member in members:
            for number, pair in enumerate(member.adapter.weights.values()):
                torch.nn.init.normal_(pair.b, generator=torch.Generator().manual_seed(number))
        losses.append(accumulate_gradients(model, members, rows))
        gradients.append([gradient(member) for member in members])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for one, other in zip(*gradients, strict=True):
        assert (one - other).norm() <= 1e-5 * other.norm()


@pytest.mark.parametrize("double", [True, False])
def test_memory_is_predicted_by_what_the_checkpoint_left_whole(double: bool, source: Path, tmp_path: Path) -> None:
    """The bytes of all weights within those that the tables of a quantized layer are rounded up to."""
    folder = save_four_bit(source, tmp_path / "nf4", double, skipped=SKIPPED)
    base = load_base_model(BaseModelSettings(str(folder)), "nf4", "cpu")
    shape, compute = base.info.shape, PRECISION_OF_DTYPE[str(base.compute_dtype).removeprefix("torch.")]
    assert len(shape.skipped_linears) == 4  # there is no third layer
    setting = MemorySetting("nf4", compute, shape.doubly_quantized(not double))
    predicted = base_components(shape, setting, ModelPart(shape.layers))
    linears = {name: module for name, module in base.model.named_modules() if name.endswith("_proj")}
    measured = sum(module.weight.nbytes for module in linears.values())
    states = [module.weight.quant_state for module in linears.values() if hasattr(module.weight, "quant_state")]
    measured += sum(state.absmax.nbytes + (state.state2.absmax.nbytes if double else 0) for state in states)
    assert predicted["base_linears"] - measured == len(states) * NF4_TABLES_BYTES
