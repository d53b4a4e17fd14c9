"""A base model over several cards: hidden states follow its layers, and nothing else changes.

What needs two cards is skipped without them; there: `python -m pytest tests/trainables/test_several_cards.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module

from tests.support.lora_cases import lora_config, random_rows
from tests.support.small_models import tiny_llama
from tests.support.trainables.packed_cases import make_member
from trainables.base_model.load import load_base_model
from trainables.measure.evaluation import evaluate_together
from trainables.measure.generation import generate_together
from trainables.measure.training_cost import measure_training_cost, measuring_plan
from trainables.memory.card_split import module_cards
from trainables.memory.offload import RESIDENT, Offload
from trainables.memory.weights import ModelPart
from trainables.packed.adapter import PackedRows
from trainables.packed.member import TrainingMember
from trainables.packed.optimizers.staging import Staging
from trainables.packed.packed_model import PackedModel
from trainables.packed.training import accumulate_gradients, collate, target_hidden, train_step
from trainables.settings import BaseModelSettings, TrainingSettings

LAYERS = 4
SPLIT = module_cards([ModelPart(1, True, False), ModelPart(LAYERS - 1, False, True)])
TOLERANCES = {"fp32": 1e-5, "fp16": 5e-3, "nf4": 2e-2}  # relative, of gradients; NF4 computes in 16 bits
two_cards = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two cards")


@pytest.mark.parametrize("fused", [True, False])
def test_hidden_states_follow_the_layers(fused: bool) -> None:
    """The meta device stands for a second card: it has shapes and no values."""
    model = tiny_llama(layers=LAYERS)
    for name, card in SPLIT.items():
        model.get_submodule(name).to("meta" if card else "cpu")
        add_hook_to_module(model.get_submodule(name), AlignDevicesHook("meta" if card else "cpu"))
    packed = PackedModel(model, fused=fused)
    adapter = packed.new_adapter(lora_config())
    rows = random_rows(3)
    where = {name.split(".")[2]: weights.a.device.type for name, weights in adapter.weights.items()}
    assert where == {"0": "cpu", "1": "meta", "2": "meta", "3": "meta"}
    assert [device.type for device in packed.devices] == ["cpu", "meta"]
    with packed.rows_of([PackedRows(adapter, slice(0, 3))]) as causal:
        hidden = target_hidden(causal, collate([rows], packed.device))
    assert hidden.device == packed.head.device == torch.device("meta")
    assert hidden.shape == (sum(row.target_tokens for row in rows), 32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model as users have one: in a folder, with a tokenizer that is not asked."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("model")
    tiny_llama(layers=LAYERS).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({f"w{number}": number for number in range(97)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0").save_pretrained(folder)
    return folder


def loaded(folder: Path, precision: str, split: bool, checkpointing: bool = False) -> PackedModel:
    cards = SPLIT if split else None
    base = load_base_model(BaseModelSettings(str(folder)), precision, "cuda", use_cache=False, cards=cards)
    base.model.train()
    if checkpointing:
        base.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return PackedModel(base.model)


def gradients(packed: PackedModel, numbers: tuple[int, ...]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Losses and gradients of the first step of some of MEMBERS, together."""
    rows = random_rows(12)
    members = [make_member(packed, rows, number, steps=4) for number in numbers]
    for member in members:  # B = 0 at the start, and with it every gradient of A
        for weights in member.adapter.weights.values():
            torch.nn.init.normal_(weights.b, std=0.1, generator=torch.Generator(weights.b.device).manual_seed(1))
    losses = accumulate_gradients(packed, members, rows)
    parts = [[p.grad.cpu().flatten() for p in m.adapter.parameters() if p.grad is not None] for m in members]
    return torch.tensor(losses), [torch.cat(part) for part in parts]


@two_cards
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("precision", TOLERANCES)
def test_losses_and_gradients_are_the_unsplit_models(folder: Path, precision: str, checkpointing: bool) -> None:
    whole, split = (loaded(folder, precision, one, checkpointing) for one in (False, True))
    assert [str(device) for device in split.devices] == ["cuda:0", "cuda:1"]
    numbers = (0, 1, 3, 7)  # of which one has dropout
    expected, ours = gradients(whole, numbers), gradients(split, numbers)
    tolerance = TOLERANCES[precision]
    torch.testing.assert_close(ours[0], expected[0], rtol=tolerance, atol=0)
    for one, other in zip(ours[1], expected[1], strict=True):
        assert (one - other).norm() <= tolerance * other.norm()


@two_cards
@pytest.mark.parametrize("precision", TOLERANCES)
def test_layers_in_host_memory_belong_to_their_cards(folder: Path, precision: str) -> None:
    """Bit-equal logits, with each block shown on its own card."""
    settings, ids = BaseModelSettings(str(folder)), torch.arange(20, device="cuda")[None]
    whole, streamed = (
        load_base_model(settings, precision, "cuda", use_cache=False, cards=SPLIT, offload=offload)
        for offload in (RESIDENT, Offload(layers=LAYERS))
    )
    assert streamed.devices == whole.devices
    assert [block.device.index for block in streamed.blocks.values()] == [0, 1, 1, 1]
    for block in streamed.blocks.values():
        assert block.block.is_pinned()
        buffer = torch.empty(block.nbytes, dtype=torch.uint8, device=block.device)
        block.copy_to(buffer)
        block.show_in(buffer)
    with torch.no_grad():
        assert torch.equal(streamed.model(ids).logits, whole.model(ids).logits)


@two_cards
def test_many_steps_end_where_the_unsplit_models_do(folder: Path) -> None:
    """Losses after 20 steps of clipped AdamW, each member's own: within 1e-4."""
    ends = []
    for split in (False, True):
        packed, rows = loaded(folder, "fp32", split), random_rows(12)
        members = [make_member(packed, rows, number, steps=20) for number in (0, 1, 2)]
        for _ in range(20):
            results = train_step(packed, members, rows)
        ends.append([result.loss for result in results])
    assert ends[1] == pytest.approx(ends[0], abs=1e-4)


@two_cards
@pytest.mark.parametrize("staged", [False, True])
def test_moments_in_8_bits_are_on_their_layers_cards(folder: Path, staged: bool) -> None:
    """Losses of 6 steps are the unsplit model's within 1e-3; rank 128, for 8 bits need parameters of 4096 numbers."""
    ends = []
    for split in (False, True):
        packed, rows = loaded(folder, "fp32", split), random_rows(12)
        staging = Staging(2**16, packed.devices) if staged else None
        members = [make_member(packed, rows, number, 6, staging, "adamw_8bit", rank=128) for number in (0, 1)]
        ends.append([[result.loss for result in train_step(packed, members, rows)] for _ in range(6)])
    assert ends[1] == [pytest.approx(losses, rel=1e-3) for losses in ends[0]]


@two_cards
def test_evaluation_and_generation_are_the_unsplit_models(folder: Path) -> None:
    found = []
    for split in (False, True):
        packed, rows = loaded(folder, "fp32", split), random_rows(12)
        adapter = packed.new_adapter(lora_config())
        (evaluation,) = evaluate_together(packed, [adapter], rows, None, 256)
        found.append((evaluation.nats, generate_together(packed, [adapter, None], rows[0].tokens, 8, exact=True)))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5)
    assert found[1][1] == found[0][1]


@two_cards
def test_each_cards_peak_is_measured(folder: Path) -> None:
    packed, rows = loaded(folder, "fp32", split=True), random_rows(12)
    adapter = packed.new_adapter(lora_config())
    member = TrainingMember(adapter, TrainingSettings(), measuring_plan(rows, 1), half=False)
    footprint = measure_training_cost(packed, member, rows, (), 0)
    assert len(footprint.card_peak_bytes) == 2
    assert min(footprint.card_peak_bytes) > 0
    assert footprint.peak_memory_bytes == sum(footprint.card_peak_bytes)
