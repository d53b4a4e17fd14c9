"""Compares loaded models with one another."""

from __future__ import annotations

import bitsandbytes
import torch
from transformers import PreTrainedModel

IDS = torch.randint(3, 500, (2, 24), generator=torch.Generator().manual_seed(0))


def _gradient(model: PreTrainedModel) -> torch.Tensor:
    """The loss's gradient by the embeddings, which passes backward through every layer, as an adapter's does."""
    inputs = model.get_input_embeddings()(IDS).detach().requires_grad_(True)
    model.train()(inputs_embeds=inputs, labels=IDS).loss.backward()
    model.eval()
    assert inputs.grad is not None
    return inputs.grad


def _quantization(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """All tensors and values of the quantized weights' states, by name; empty where nothing is quantized."""
    found: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False
            assert module.weight.module is module
            assert module.quant_state is module.weight.quant_state
            for key, value in module.weight.quant_state.as_dict(packed=True).items():
                found[f"{name}.{key}"] = value
            found[f"{name}.compute_dtype"] = torch.zeros(0, dtype=module.compute_dtype)
    return found


def assert_same(ours: PreTrainedModel, theirs: PreTrainedModel) -> None:
    """Compares two loaded models: types, tensors, quantization, configurations, logits and gradients, bit by bit."""
    assert type(ours) is type(theirs)
    for tensors in (lambda m: m.named_parameters(), lambda m: m.named_buffers(), lambda m: _quantization(m).items()):
        one, other = dict(tensors(ours)), dict(tensors(theirs))
        assert list(one) == list(other)
        for name, tensor in one.items():
            assert (tensor.dtype, tensor.requires_grad) == (other[name].dtype, other[name].requires_grad), name
            assert torch.equal(tensor, other[name]), name
    assert ours.config.to_dict() == theirs.config.to_dict()
    assert ours.generation_config.to_dict() == theirs.generation_config.to_dict()
    assert [type(module) for module in ours.modules()] == [type(module) for module in theirs.modules()]
    assert not any(module.training for module in ours.modules())
    with torch.no_grad():
        assert torch.equal(ours(IDS).logits, theirs(IDS).logits)
    for model in (ours, theirs):
        model.requires_grad_(False)
    assert torch.equal(_gradient(ours), _gradient(theirs))
