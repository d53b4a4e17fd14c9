"""What a layer keeps between forward and backward, byte by byte, in every family's form."""

from __future__ import annotations

import pytest
import torch

from tests.support.trainables.memory_trace import TracedBytes, allocate_as_a_card
from tests.support.trainables.tiny_families import CASES, tiny_family
from trainables.limits import FP32_BYTES
from trainables.packed.fused.decoder import FusedDecoder
from trainables.packed.fused.form import DecoderForm
from trainables.packed.fused.positions import Positions
from trainables.packed.pack import Pack

ROWS, TOKENS = 2, 16


def kept_bytes(form: DecoderForm) -> int:
    """As the states of the blocks say it, in bf16, without adapters."""
    shape, family = form.shape, form.family
    d, a, k, f = shape.hidden_size, shape.query_size, shape.key_size, shape.intermediate_size
    before = d * sum(name is not None for name in (family.norms.before_attention, family.norms.before_mlp))
    after = d * sum(name is not None for name in (family.norms.after_attention, family.norms.after_mlp))
    raw = a + k if family.head_norms != "none" else 0
    repeated = 2 * a if k < a else 0
    heads = a + 2 * k + repeated if len(family.qkv) == 1 else 3 * a
    of_token = 2 * (before + raw + heads + a + after + d + 2 * f)
    softmax = 0 if form.score_cap else FP32_BYTES * shape.attention_heads
    return ROWS * TOKENS * (of_token + softmax)


@pytest.mark.parametrize("case", CASES)
def test_a_layer_keeps_what_its_states_say(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact; as on a card, where kernels work in place."""
    allocate_as_a_card(monkeypatch)
    model = tiny_family(case, torch.bfloat16)
    linears = {
        name: module
        for name, module in model.get_decoder().named_modules(prefix="model")
        if isinstance(module, torch.nn.Linear)
    }
    decoder = FusedDecoder(model, linears)
    layer, hidden = decoder._layers[1], torch.randn(ROWS * TOKENS, 32).to(torch.bfloat16)
    positions = Positions.of(model.model.rotary_emb, hidden.view(ROWS, TOKENS, -1), decoder._forms)
    there = [hidden, *model.parameters(), *positions.masks.values()]  # a pass has its masks once
    with torch.no_grad(), TracedBytes(there) as live:
        state = layer.state(hidden, positions, Pack(), graph=True)
        output = layer.output(state, positions, Pack(), keep=True)
        del output
        assert live.now == kept_bytes(DecoderForm.of(model.config))
