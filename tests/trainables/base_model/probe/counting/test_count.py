"""Bytes counted on the meta device against the bytes alive in a real layer on the CPU, exactly, and closed forms."""

import json

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from tests.support.trainables.memory_trace import TracedBytes
from trainables.base_model.probe.counted_layer import CountedLayer, Growth
from trainables.base_model.probe.counting import count
from trainables.base_model.probe.counting.count import decoder_layers

SIZES = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4}
SPECIAL = {"pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2}
FAMILIES = {
    "llama": {"num_key_value_heads": 2},
    "gpt_neox": {},
    "stablelm": {"num_key_value_heads": 4},
    "phi": {"num_key_value_heads": 2},
    "cohere": {"num_key_value_heads": 2},
    "olmo": {"num_key_value_heads": 4},
    "starcoder2": {"num_key_value_heads": 2},
    "persimmon": {},
}


def config_of(model_type, **changes):
    own = {**SIZES, **SPECIAL, **FAMILIES[model_type], **changes}
    return AutoConfig.for_model(model_type, vocab_size=97, max_position_embeddings=256, **own)


def counted(config) -> CountedLayer:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    return CountedLayer.from_json(json.loads(json.dumps(count(model).to_json())))


def kept_by_a_real_layer(config, dtype, rows, tokens) -> int:
    """The bytes alive when the last layer's forward pass is done, beside weights, its input and its output."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").to(dtype)
    model.requires_grad_(False).train()
    layer = decoder_layers(model)[-1]
    found = []

    def measured(module, arguments, keywords, output):
        (hidden, *others), mode = arguments, TracedBytes([])
        there = [hidden, *(leaf for one in keywords.values() for leaf in (one if isinstance(one, tuple) else [one]))]
        there = [one for one in (*there, *others) if isinstance(one, torch.Tensor)]
        mode = TracedBytes([*model.parameters(), *model.buffers(), *there])
        hidden = hidden.detach().requires_grad_()
        with mode:
            result = module.forward(hidden, *others, **keywords)
            own = result[0] if isinstance(result, tuple) else result
            found.append(mode.now - own.untyped_storage().nbytes())

    handle = layer.register_forward_hook(measured, with_kwargs=True)
    model.get_decoder()(input_ids=torch.ones(rows, tokens, dtype=torch.long), use_cache=False)
    handle.remove()
    return found[0]


@pytest.mark.parametrize("model_type", FAMILIES)
def test_kept_bytes_are_those_of_a_real_layer(model_type):
    """To the byte; in 16 bits a CPU keeps layer norms' statistics in 16 bits, where a card keeps 32: at most 4 %."""
    config = config_of(model_type)
    found = counted(config)
    for rows, tokens in ((1, 20), (3, 50)):
        full, half = (kept_by_a_real_layer(config, dtype, rows, tokens) for dtype in (torch.float32, torch.bfloat16))
        assert found.full.kept.bytes_at(rows, tokens) == full
        assert half <= found.half.kept.bytes_at(rows, tokens) <= (half if model_type == "llama" else 1.04 * half)


def test_a_llama_layer_is_counted_as_its_formula_says():
    """In 16 bits: norms' inputs in fp32 (8 d), queries, keys, values and output (2 (2 a + 2 k)), log-sum-exp (4 a
    head), gate, its SiLU and up (6 f), and two numbers of each norm (8)."""
    found = counted(config_of("llama"))
    d, a, k, f, heads = 64, 64, 32, 160, 4
    assert found.half.kept == Growth(0, 8 * d + 4 * (a + k) + 4 * heads + 6 * f + 8, 0)
    assert not found.half.keeps_input
    assert [group.names for group in found.half.inputs] == [
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        ("self_attn.o_proj",),
        ("mlp.gate_proj", "mlp.up_proj"),
        ("mlp.down_proj",),
    ]
    assert [group.is_kept for group in found.half.inputs] == [False, True, False, False]


def test_scores_of_a_layers_own_attention_grow_with_pairs_of_tokens():
    """Gemma 2 under transformers attends without torch's kernels: softmax in fp32 and 16 bits, twice the capped."""
    config = AutoConfig.for_model(
        "gemma2", vocab_size=97, **SIZES, num_key_value_heads=2, head_dim=16, sliding_window=64
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    found = count(model)
    assert found.attending is None
    assert found.half.kept.of_pair >= 4 * (4 + 2)


def test_what_depends_on_values_is_refused():
    class Choosing(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 64)

        def forward(self, hidden, **_):
            return self.linear(hidden)[hidden.mean(-1) > 0]

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config_of("llama"), attn_implementation="sdpa")
        for place in range(2):
            model.model.layers[place].mlp = Choosing()
    with pytest.raises(ValueError, match="llama cannot be run on the meta device"):
        count(model)
