"""Says what a causal model makes of its output head's products: logits = cap * tanh((W h + b) / divisor / cap).

Losses and answers are computed from hidden states, without the model's own last step; which step that is, its
configuration says, and a check at wrapping.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

_DIVISORS = ("logits_scaling",)  # Granite's
_FACTORS = ("logit_scale", "lm_head_multiplier", "output_multiplier")  # Cohere's, Falcon-H1's, Muse's
_MULTIPLIED = ("hyperclovax",)  # where `logits_scaling` is a factor
LARGEST_LOGIT = 50.0  # of the check: beyond all caps in use
STEPS_OFF = 16  # of the head's type, by which logits may differ


@dataclass(frozen=True)
class LogitsForm:
    """What follows the head's product: a division, then a cap, cap * tanh(logits / cap); None: no cap."""

    divisor: float = 1.0
    cap: float | None = None

    @classmethod
    def of(cls, config: Any) -> LogitsForm:
        """Reads a model's configuration, by the keys that transformers' models have."""
        config = config.get_text_config()
        divisor = 1.0
        for key in _DIVISORS:
            value = float(getattr(config, key, None) or 1.0)
            divisor *= 1 / value if config.model_type in _MULTIPLIED else value
        for key in _FACTORS:
            divisor /= float(getattr(config, key, None) or 1.0)
        cap = getattr(config, "final_logit_softcapping", None)
        return cls(divisor, float(cap) if cap else None)

    def applied(self, logits: torch.Tensor) -> torch.Tensor:
        """Returns the model's logits for its head's products, in fp32."""
        logits = logits.float() / self.divisor
        return logits if self.cap is None else torch.tanh(logits / self.cap) * self.cap


PLAIN = LogitsForm()


class OutputHead:
    """A model's frozen head with the form of its logits: vocabulary x hidden, and a bias where it has one."""

    def __init__(self, module: nn.Module, form: LogitsForm) -> None:
        self._module = module
        self.form = form

    @property
    def weight(self) -> torch.Tensor:
        """Vocabulary x hidden."""
        weight: torch.Tensor = self._module.weight  # type: ignore[assignment]
        return weight

    @property
    def bias(self) -> torch.Tensor | None:
        """One number for each token of the vocabulary; None: no bias."""
        return getattr(self._module, "bias", None)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Returns n x vocabulary logits in fp32 for hidden states of n x hidden, products taken in their type."""
        return self.form.applied(self.products(hidden, self.weight, self.bias))

    @staticmethod
    def products(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Returns W h + b in the type of `hidden`."""
        bias = None if bias is None else bias.to(hidden.dtype)
        return nn.functional.linear(hidden, weight.to(hidden.dtype), bias)


def check_logits(model: Any, head: OutputHead, few_tokens: Any) -> None:
    """Compares the model's logits of some hidden states with the head's.

    The decoder's output is replaced by hidden states whose logits are so large that a cap shows. Raises ValueError
    where they differ.
    """
    found: list[torch.Tensor] = []

    def replace(decoder: nn.Module, arguments: Any, output: Any) -> Any:
        hidden = output[0]
        found.append(_loud(hidden, head))
        if isinstance(output, tuple):
            return (found[0], *output[1:])
        output["last_hidden_state"] = found[0]
        return output

    hook = model.get_decoder().register_forward_hook(replace)
    try:
        theirs = few_tokens(model).logits.float()
    finally:
        hook.remove()
    if theirs.is_meta:  # there are no numbers to compare
        return
    with torch.no_grad():
        ours = head.logits(found[0].to(head.weight.device)).to(theirs.device)
    _refuse_unlike(ours, theirs, torch.finfo(found[0].dtype).eps, head.form)


def _loud(hidden: torch.Tensor, head: OutputHead) -> torch.Tensor:
    """Returns random hidden states of the same shape, with products up to the largest logit."""
    draw = torch.Generator().manual_seed(0)
    direction = torch.randn(hidden.shape, generator=draw).to(head.weight.device, hidden.dtype)
    products = OutputHead.products(direction, head.weight, None)
    return (direction * (LARGEST_LOGIT * head.form.divisor / products.abs().max())).to(hidden.device)


def _refuse_unlike(ours: torch.Tensor, theirs: torch.Tensor, step: float, form: LogitsForm) -> None:
    off, size = float((ours - theirs).abs().max()), float(theirs.abs().max())
    if not off <= STEPS_OFF * step * size:
        raise ValueError(
            f"a model's logits must be those of its head under {form}, or its losses would be wrong; this one's differ "
            f"by up to {off:.3g} of {size:.3g}. Such a model cannot be trained here: choose another one."
        )
