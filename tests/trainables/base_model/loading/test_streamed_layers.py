"""A base of which layers wait in host memory holds, bit by bit, what the resident one holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    PreTrainedModel,
)

from tests.support.places import SHARED
from tests.support.trainables.four_bit_folders import save_four_bit
from tests.support.trainables.gguf_files import small_llama, write_gguf
from trainables.base_model import load, weights
from trainables.base_model.checks.faults import BaseModelError
from trainables.base_model.load import BaseModel, load_base_model
from trainables.base_model.loading import tensors
from trainables.base_model.loading.moving import move
from trainables.base_model.loading.placement import Placement, decoder_layers
from trainables.base_model.streaming import host_memory
from trainables.measure.process_memory import resident_peak
from trainables.memory.offload import Offload, streamed_layers
from trainables.settings import BaseModelSettings

TOKENIZER = SHARED / "models" / "stories260K"
SIZES: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
    "vocab_size": 512, "max_position_embeddings": 128,
}  # fmt: skip
IDS = torch.arange(3, 27)[None]

pytestmark = pytest.mark.skipif(not TOKENIZER.is_dir(), reason="needs a tokenizer of ../shared/models")


def _saved(folder: Path, config: Any = None) -> Path:
    torch.manual_seed(0)
    config = config or LlamaConfig(**SIZES, num_key_value_heads=2, attention_bias=True)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(TOKENIZER).save_pretrained(folder)
    return folder


def _tensors(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Everything a model holds, the statistics of its quantization too."""
    state = {name: tensor for name, tensor in model.state_dict().items() if ".quant_state." not in name}
    return {**state, **{f"buffer {name}": buffer for name, buffer in model.named_buffers()}}


def _assert_same(streamed: BaseModel, resident: BaseModel, count: int) -> None:
    """What is in blocks and what is not are the resident base's, bit for bit; what blocks hold is nowhere else."""
    layers = decoder_layers(streamed.model)
    assert tuple(streamed.blocks) == streamed_layers(count, len(layers))
    expected, found = _tensors(resident.model), _tensors(streamed.model)
    in_blocks = {
        f"{layers[number][0]}.{key}": view
        for number, block in streamed.blocks.items()
        for key, view in block.views().items()
    }
    assert in_blocks.keys() <= expected.keys()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        ours = in_blocks.get(name, found[name])
        assert (ours.dtype, ours.shape, found[name].shape) == (tensor.dtype, tensor.shape, tensor.shape), name
        assert torch.equal(ours, tensor), name
        assert name not in in_blocks or found[name].untyped_storage().nbytes() <= 4, f"{name} is there twice"
    assert [type(one) for one in streamed.model.modules()] == [type(one) for one in resident.model.modules()]
    ours, theirs = streamed.model.config.to_dict(), resident.model.config.to_dict()
    assert {**ours, "_name_or_path": ""} == {**theirs, "_name_or_path": ""}
    assert streamed.model.generation_config.to_dict() == resident.model.generation_config.to_dict()
    assert not any(parameter.requires_grad for parameter in streamed.model.parameters())
    with torch.no_grad():
        hidden = streamed.model(IDS).logits
        for block in streamed.blocks.values():
            buffer = torch.empty(block.nbytes, dtype=torch.uint8)
            block.copy_to(buffer)
            block.show_in(buffer)
        assert torch.equal(streamed.model(IDS).logits, resident.model(IDS).logits)
    assert bool(hidden.isnan().all()) == (count > 0)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_whole_weights(precision: str, count: int, tmp_path: Path) -> None:
    settings = BaseModelSettings(str(_saved(tmp_path / "model")))
    streamed = load_base_model(settings, precision, "cpu", offload=Offload(count))
    _assert_same(streamed, load_base_model(settings, precision, "cpu"), count)


@pytest.mark.parametrize("multiplies", [True, False])
@pytest.mark.parametrize("double", [True, False])
def test_quantized_at_once_kept_and_from_the_cache(
    double: bool, multiplies: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "cpu_multiplies_bf16", lambda: multiplies)
    settings = BaseModelSettings(str(_saved(tmp_path / "model")), double_quantization=double)
    resident = load_base_model(settings, "nf4", "cpu", use_cache=False)
    for use_cache in (False, True, True):  # quantized, quantized and kept, from the cache
        streamed = load_base_model(settings, "nf4", "cpu", use_cache=use_cache, offload=Offload(2))
        _assert_same(streamed, resident, 2)
    _assert_same(load_base_model(settings, "nf4", "cpu"), resident, 0)  # of what the streamed load has kept


@pytest.mark.parametrize("double", [True, False])
def test_a_checkpoint_in_four_bits(double: bool, tmp_path: Path) -> None:
    folder = save_four_bit(_saved(tmp_path / "model"), tmp_path / "nf4", double, skipped=["lm_head", "k_proj"])
    settings = BaseModelSettings(str(folder))
    streamed = load_base_model(settings, "nf4", "cpu", offload=Offload(2))
    _assert_same(streamed, load_base_model(settings, "nf4", "cpu"), 2)


@pytest.mark.parametrize("precision", ["bf16", "nf4"])
def test_a_gguf_file(precision: str, tmp_path: Path) -> None:
    settings = BaseModelSettings(str(write_gguf(tmp_path / "m.gguf", small_llama())))
    resident = load_base_model(settings, precision, "cpu")
    layers = resident.info.shape.layers
    _assert_same(load_base_model(settings, precision, "cpu", offload=Offload(layers)), resident, layers)


@pytest.mark.usefixtures("probed_here")
@pytest.mark.parametrize("precision", ["fp32", "nf4"])
def test_a_decoder_without_a_form_that_transformers_loads(precision: str, tmp_path: Path) -> None:
    """GPT-NeoX, whose files name tensors otherwise than its modules do."""
    settings = BaseModelSettings(str(_saved(tmp_path / "model", GPTNeoXConfig(**SIZES))))
    resident = load_base_model(settings, precision, "cpu", use_cache=False)
    for use_cache in (False, True, True)[: 1 if precision == "fp32" else 3]:
        streamed = load_base_model(settings, precision, "cpu", use_cache=use_cache, offload=Offload(2))
        assert isinstance(streamed.model, GPTNeoXForCausalLM)
        _assert_same(streamed, resident, 2)


def test_blocks_of_several_cards_belong_to_their_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device stands for a second card: it has shapes and no values, while its blocks have theirs."""
    monkeypatch.setattr(weights, "spread", lambda model, placement: model)  # there is nothing to compute there
    places = {"model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.norm": "meta", "lm_head": "meta"}
    places |= {f"model.layers.{number}": "meta" if number else "cpu" for number in range(3)}
    settings = BaseModelSettings(str(_saved(tmp_path / "model")))
    resident = load_base_model(settings, "fp32", "cpu").model.state_dict()
    base = load_base_model(settings, "fp32", "cpu", cards=places, offload=Offload(2))  # type: ignore[arg-type]
    for name, parameter in base.model.named_parameters():
        place = next(device for module, device in places.items() if name.startswith(f"{module}."))
        assert parameter.device.type == place, name
    assert {number: block.device.type for number, block in base.blocks.items()} == {1: "meta", 2: "meta"}
    for number, block in base.blocks.items():
        for key, view in block.views().items():
            assert torch.equal(view, resident[f"model.layers.{number}.{key}"]), key


def test_a_model_that_is_moved_keeps_its_ties_and_numbers(tmp_path: Path) -> None:
    """From the CPU to the CPU: what is moved is what is loaded there."""
    config = LlamaConfig(**SIZES, num_key_value_heads=2, tie_word_embeddings=True)
    model = AutoModelForCausalLM.from_pretrained(_saved(tmp_path / "model", config))
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    move(model, Placement({"": "meta"}))
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert {buffer.device.type for buffer in model.buffers()} == {"meta"}
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert {name: parameter.shape for name, parameter in model.named_parameters()} == shapes


@pytest.fixture
def embedded_from_host(monkeypatch: pytest.MonkeyPatch) -> list[PreTrainedModel]:
    """The models whose embedding is looked up in host memory."""
    models: list[PreTrainedModel] = []
    monkeypatch.setattr(load, "embed_from_host", models.append)
    return models


@pytest.mark.parametrize("precision", ["fp32", "nf4"])
def test_the_embedding_stays_on_the_cpu(
    precision: str, embedded_from_host: list[PreTrainedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever else the rest is: the meta device stands for a card again, where nothing is quantized."""
    settings = BaseModelSettings(str(_saved(tmp_path / "model")))
    resident = load_base_model(settings, precision, "cpu")
    base = load_base_model(settings, precision, "cpu", offload=Offload(embedding=True))
    _assert_same(base, resident, 0)
    assert embedded_from_host == [base.model]
    if precision == "fp32":
        placement = Placement({"": "meta"}, Offload(embedding=True))
        model = weights.load_weights(Path(settings.path), placement, torch.float32)
        on_cpu = [name for name, parameter in model.named_parameters() if parameter.device.type == "cpu"]
        assert on_cpu == ["model.embed_tokens.weight"]
        with placement.set_aside(model):
            assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
        assert torch.equal(model.model.embed_tokens.weight, resident.model.model.embed_tokens.weight)


def test_an_embedding_that_the_head_shares_is_refused(tmp_path: Path) -> None:
    config = LlamaConfig(**SIZES, tie_word_embeddings=True)
    settings = BaseModelSettings(str(_saved(tmp_path / "model", config)))
    with pytest.raises(BaseModelError, match="must not be shared"):
        load_base_model(settings, "fp32", "cpu", offload=Offload(embedding=True))


@pytest.mark.parametrize("precision", ["fp32", "nf4"])
def test_too_little_host_memory_is_refused(precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = BaseModelSettings(str(_saved(tmp_path / "model")))
    monkeypatch.setattr(host_memory, "available_bytes", lambda: 10_000)
    with pytest.raises(
        BaseModelError, match=r"must fit there; 0\.00 GiB do not: 0\.00 GiB are left\. Free host memory"
    ):
        load_base_model(settings, precision, "cpu", offload=Offload(1))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_host_memory_holds_no_second_copy(precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The peak over what was there: blocks, one layer, and 8 MiB for all else."""
    monkeypatch.setattr(tensors, "PIECE_BYTES", 2**19)
    sizes = {**SIZES, "hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 8, "vocab_size": 512}
    settings = BaseModelSettings(str(_saved(tmp_path / "model", LlamaConfig(**sizes))))
    load_base_model(settings, precision, "cpu")  # what is imported and made once
    before = psutil.Process().memory_info().rss
    with resident_peak() as peak:
        base = load_base_model(settings, precision, "cpu", offload=Offload(8))
    in_blocks = sum(block.nbytes for block in base.blocks.values())
    assert in_blocks > 35 * 2**20
    assert peak[0] - before <= in_blocks + in_blocks // 8 + 8 * 2**20, (peak[0] - before, in_blocks)
