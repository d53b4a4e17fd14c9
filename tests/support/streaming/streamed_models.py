"""Tiny models of which some layers wait in host memory, and all that a training, an evaluation and texts come to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit, Params4bit
from torch import nn

from search_spaces.trial_config import TrialConfig
from tests.support.lora_cases import new_member, random_rows
from tests.support.trainables.packed_cases import SPLIT
from trainables.base_model.loading.placement import decoder_layers
from trainables.base_model.streaming.layer_block import LayerBlock
from trainables.measure.evaluation import evaluate_together
from trainables.measure.generation import generate_all
from trainables.memory.offload import streamed_layers
from trainables.packed.member import TrainingMember
from trainables.packed.packed_model import PackedModel
from trainables.packed.training import train_step

CPU = torch.device("cpu")
PROMPTS = [[5, 9], [30, 31, 32, 33], [7]]
CHECKPOINTING = {"use_reentrant": False, "preserve_rng_state": False}


def four_bit(model: Any) -> Any:
    """Quantizes the linear layers of a decoder's layers to NF4, in place, with double quantization."""
    for _, layer in decoder_layers(model):
        for module in list(layer.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(module, name, _quantized(child))
    return model


def _quantized(linear: nn.Linear) -> Linear4bit:
    bias = linear.bias is not None
    layer = Linear4bit(linear.in_features, linear.out_features, bias, compute_dtype=torch.float32, quant_type="nf4")
    weight = Params4bit(linear.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True)
    layer.weight, layer.bias = weight.to(linear.weight.device), linear.bias
    layer.support_avx512bf16_for_cpu = False
    return layer


def streamed_model(model: Any, count: int, fused: bool = True, device: torch.device = CPU) -> PackedModel:
    """Wraps a model, which is on `device`, of which `count` layers are streamed, in training with checkpointing."""
    layers = [layer for _, layer in decoder_layers(model)]
    chosen = streamed_layers(count, len(layers))
    blocks = {number: LayerBlock(layers[number], device, pinned=device.type == "cuda") for number in chosen}
    model.train().gradient_checkpointing_enable(gradient_checkpointing_kwargs=CHECKPOINTING)
    return PackedModel(model, fused=fused, blocks=blocks)


def life_of(model: PackedModel, configs: list[TrialConfig], vocabulary: int, steps: int = 3) -> list[torch.Tensor]:
    """All numbers of a short training in a pack, of evaluations during and after it, and of texts at its end."""
    rows = random_rows(9, vocabulary, longest=10)
    members = [new_member(model, config, rows) for config in configs]
    adapters = [None, *(member.adapter for member in members)]
    numbers = []
    for _ in range(steps):
        results = train_step(model, members, rows, SPLIT)
        evaluations = evaluate_together(model, adapters, rows[:3], (), 1000)
        numbers += [torch.tensor([one.loss for one in results])]
        numbers += [torch.tensor(one.nats, dtype=torch.float64) for one in evaluations]
    model.model.generation_config.eos_token_id = None
    texts = generate_all(model, [(one, prompt) for prompt in PROMPTS for one in adapters], 4, 60)
    return numbers + [torch.tensor(text) for text in texts] + [one for member in members for one in _state(member)]


def _state(member: TrainingMember) -> list[torch.Tensor]:
    states = [member.optimizer.state[parameter] for parameter in member.adapter.parameters()]
    moments = [state[name] for state in states for name in ("exp_avg", "exp_avg_sq")]
    return [parameter.detach().clone() for parameter in member.adapter.parameters()] + moments


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    """Whether two lives have the same bits."""
    return len(one) == len(other) and all(map(torch.equal, one, other))


def lives(make: Callable[[], Any], configs: list[TrialConfig], fused: bool) -> list[list[torch.Tensor]]:
    """The lives of a model with none, one, two, … and all of its layers streamed."""
    count = len(decoder_layers(make()))
    vocabulary = make().config.vocab_size
    return [life_of(streamed_model(make(), streamed, fused), configs, vocabulary) for streamed in range(count + 1)]
