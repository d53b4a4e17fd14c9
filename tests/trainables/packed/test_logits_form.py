"""What models make of their head's products: read from their configurations, and checked at wrapping."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, PretrainedConfig

from tests.support.trainables.small_decoders import small_decoder
from trainables.dataset.rows import Row
from trainables.measure.evaluation import evaluate
from trainables.packed.logits_form import LogitsForm
from trainables.packed.packed_model import PackedModel
from trainables.packed.target_loss import target_nats

GEMMA2 = {"attn_implementation": "eager", "head_dim": 16, "final_logit_softcapping": 5.0, "sliding_window": 64}
FORMS: dict[str, tuple[str, dict[str, Any], LogitsForm]] = {
    "plain": ("stablelm", {}, LogitsForm()),
    "with a bias": ("phi", {}, LogitsForm()),
    "multiplied": ("cohere", {"logit_scale": 0.25}, LogitsForm(divisor=4.0)),
    "divided": ("granite", {"logits_scaling": 8.0}, LogitsForm(divisor=8.0)),
    "capped": ("gemma2", GEMMA2, LogitsForm(cap=5.0)),
    "not capped": ("gemma2", {**GEMMA2, "final_logit_softcapping": None}, LogitsForm()),
}
WRONG = [
    ("multiplied", LogitsForm()),
    ("multiplied", LogitsForm(divisor=0.25)),
    ("divided", LogitsForm()),
    ("capped", LogitsForm()),
    ("capped", LogitsForm(cap=6.0)),
    ("capped", LogitsForm(divisor=1.1, cap=5.0)),
    ("plain", LogitsForm(cap=30.0)),
    ("with a bias", LogitsForm(divisor=2.0)),
]


def decoder(name: str) -> Any:
    model_type, changes, _ = FORMS[name]
    values = {key: value for key, value in changes.items() if value is not None}
    model = small_decoder(model_type, **values)
    for key in changes.keys() - values.keys():
        setattr(model.config, key, None)
    return model


@pytest.mark.parametrize("name", FORMS)
def test_losses_are_those_of_the_models_own_logits(name: str) -> None:
    """Nats of every token but the first, 1e-5 relative; and their gradient of the hidden states, 1e-4."""
    plain, model = decoder(name), PackedModel(decoder(name))
    assert model.output_head.form == FORMS[name][2]
    ids = torch.randint(97, (1, 12), generator=torch.Generator().manual_seed(1))
    theirs = torch.nn.functional.cross_entropy(plain(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none")
    evaluation = evaluate(model, None, [Row(tuple(ids[0].tolist()), 1, None, "")], (), 64)
    assert evaluation.nats[0] == pytest.approx(float(theirs.sum()), rel=1e-5)


@pytest.mark.parametrize("name", FORMS)
def test_gradients_are_those_through_the_models_own_last_step(name: str) -> None:
    model = PackedModel(decoder(name))
    draw = torch.Generator().manual_seed(2)
    hidden, targets = 3 * torch.randn(7, 32, generator=draw), torch.randint(97, (7,), generator=draw)
    ours, theirs = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    model.target_nats(ours, targets).sum().backward()
    logits = model.output_head.logits(theirs)
    torch.nn.functional.cross_entropy(logits, targets, reduction="sum").backward()
    assert torch.linalg.norm(ours.grad - theirs.grad) <= 1e-4 * torch.linalg.norm(theirs.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", FORMS)
def test_the_right_form_passes_in_sixteen_bits_too(name: str, dtype: torch.dtype) -> None:
    PackedModel(decoder(name).to(dtype))


@pytest.mark.parametrize(("name", "form"), WRONG)
def test_a_wrong_form_is_refused(name: str, form: LogitsForm) -> None:
    with pytest.raises(ValueError, match="must be those of its head under LogitsForm"):
        PackedModel(decoder(name), form=form)


def test_a_factor_and_a_text_models_configuration_are_read() -> None:
    class Outer(PretrainedConfig):
        def get_text_config(self, *more: Any, **named: Any) -> Any:
            return LlamaConfig(lm_head_multiplier=0.5)

    assert LogitsForm.of(Outer()) == LogitsForm(divisor=2.0)
    upside_down = LlamaConfig(logits_scaling=4.0)
    upside_down.model_type = "hyperclovax"
    assert LogitsForm.of(upside_down) == LogitsForm(divisor=0.25)


def test_division_and_cap_are_applied_in_that_order() -> None:
    logits = torch.tensor([[4.0, -8.0, 0.0]])
    expected = 3.0 * torch.tanh(logits / 2.0 / 3.0)
    torch.testing.assert_close(LogitsForm(2.0, 3.0).applied(logits), expected)
    nats = target_nats(logits, torch.eye(3), torch.tensor([1]), LogitsForm(2.0, 3.0))
    torch.testing.assert_close(nats, -torch.log_softmax(expected, -1)[:, 1])
