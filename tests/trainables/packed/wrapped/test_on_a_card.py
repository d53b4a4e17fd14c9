"""On a card streamed layers are the resident ones to the bit, however late copies and work come; needs one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.support.lora_cases import lora_config
from tests.support.streaming.streamed_models import four_bit, life_of, same, streamed_model
from trainables.base_model.streaming.layer_block import LayerBlock
from trainables.base_model.streaming.layer_stream import LayerStream

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a card")
LAYERS, VOCABULARY, STEPS = 8, 97, 4
LATE_CYCLES = 1_000_000  # of a card's clock, about half a millisecond: longer than a layer's work, or its copy
CONFIGS = [lora_config(target_modules="q_v", lora_dropout=0.2, seed=1), lora_config(lora_dropout=0.1, seed=2)]


def model_of(precision: str, device: torch.device) -> Any:
    """A Llama whose layers take 6 MiB in fp32, so that a copy takes as long as the few rows' work."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=384, intermediate_size=1024, num_hidden_layers=LAYERS, num_attention_heads=6,
        num_key_value_heads=2, vocab_size=VOCABULARY, max_position_embeddings=128, attn_implementation="sdpa",
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).to(device).requires_grad_(False)
    return four_bit(model) if precision == "nf4" else model


def life(precision: str, streamed: int, fused: bool) -> list[torch.Tensor]:
    card = torch.device("cuda", torch.cuda.current_device())
    return life_of(streamed_model(model_of(precision, card), streamed, fused, card), CONFIGS, VOCABULARY, STEPS)


def late(act: Callable[..., None]) -> Callable[..., None]:
    """Lets the stream that is current wait before an act's own work is queued there."""

    def act_late(*arguments: Any) -> None:
        torch.cuda._sleep(LATE_CYCLES)
        act(*arguments)

    return act_late


def make_late(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies end long after they are asked for, or a layer's work begins long after it is queued."""
    if what == "copies":
        monkeypatch.setattr(LayerBlock, "copy_to", late(LayerBlock.copy_to))
    elif what == "work":
        use = LayerStream.use

        def use_late(stream: LayerStream, layer: int) -> None:
            use(stream, layer)
            torch.cuda._sleep(LATE_CYCLES)

        monkeypatch.setattr(LayerStream, "use", use_late)


@pytest.mark.parametrize("what", ["nothing", "copies", "work"])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "nf4"])
def test_streamed_layers_are_the_resident_ones(
    precision: str, fused: bool, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tolerance: none; beside it that the card repeats itself, without which the comparison says nothing."""
    resident = life(precision, 0, fused)
    assert all(torch.isfinite(one).all() for one in resident)
    assert same(life(precision, 0, fused), resident), "the card's own arithmetic does not repeat"
    make_late(what, monkeypatch)
    for streamed in (LAYERS, 5):
        assert same(life(precision, streamed, fused), resident)


def test_a_copy_without_its_wait_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison sees the fault that it is there for."""
    from trainables.base_model.streaming.copy_lane import CardLane

    resident = life("fp32", 0, fused=True)
    make_late("copies", monkeypatch)
    monkeypatch.setattr(CardLane, "await_copy", lambda lane, buffer: None)
    assert not same(life("fp32", LAYERS, fused=True), resident)


def test_blocks_are_page_locked_once_and_unlocked_with_their_layer() -> None:
    """torch takes memory that it has not allocated for pinned, views too: so copies return before they are done."""
    card = torch.device("cuda", torch.cuda.current_device())
    for _ in range(3):  # the system may give the same pages again
        block = LayerBlock(torch.nn.Linear(4096, 4096, device=card).requires_grad_(False), card, pinned=True)
        assert block.block.is_pinned()
        assert next(iter(block.views().values())).is_pinned()
        buffer = torch.empty(block.nbytes, dtype=torch.uint8, device=card)
        torch.cuda.synchronize()
        ended = torch.cuda.Event()
        torch.cuda._sleep(100 * LATE_CYCLES)
        block.copy_to(buffer)
        ended.record()
        assert not ended.query(), "the host waited for the copy"
        torch.cuda.synchronize()
        assert torch.equal(buffer.cpu(), block.block)


def test_buffers_that_are_freed_with_a_copy_under_way_go_to_nobody_before_it() -> None:
    """Memory is taken at once where a stream's buffers were; the late copy must not reach it."""
    card = torch.device("cuda", torch.cuda.current_device())
    layers = [torch.nn.Linear(2048, 2048, bias=False, device=card).requires_grad_(False) for _ in range(4)]
    blocks = {number: LayerBlock(layer, card, pinned=True) for number, layer in enumerate(layers)}
    stream = LayerStream(blocks)
    stream.use(0)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream._lane._stream):  # type: ignore[attr-defined]
        torch.cuda._sleep(50 * LATE_CYCLES)
    stream.use(1)  # layer 2's copy waits behind the pause
    for block in blocks.values():
        block.hide()
    size = stream.buffer_bytes // 3
    del stream
    others = [torch.full((size,), 7, dtype=torch.uint8, device=card) for _ in range(3)]
    torch.cuda.synchronize()
    assert all(bool((other == 7).all()) for other in others)
