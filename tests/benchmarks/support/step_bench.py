"""Makes what a packed step is measured against: PEFT's own step, and the floor, over the same weights."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import peft
import torch
from torch import nn

from search_spaces.trial_config import TrialConfig
from tests.benchmarks.support.random_models import assemble, random_weights, targets_of
from tests.benchmarks.support.shapes import SHAPES
from trainables.dataset.rows import Row
from trainables.limits import logits_chunk_rows
from trainables.packed.linear_group import frozen_weight
from trainables.packed.member import TrainingMember
from trainables.packed.packed_model import PackedModel
from trainables.settings import TrainingSettings

RANK = 16
TARGET_SHARE = 0.25
CHECKPOINTING = {"use_reentrant": False, "preserve_rng_state": False}
MANY_STEPS = 10**6


class Bench:
    """One set of random weights, held by a model of ours and one of PEFT's."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device = torch.device(options.device)
        self.on_card = self.device.type == "cuda"
        self.precision: str = options.precision or ("nf4" if self.on_card else "fp32")
        self.dtype = _compute_dtype(self.precision, self.on_card)
        self.half = self.dtype == torch.float16
        self.weights = random_weights(options.model, self.device, self.dtype, nf4=self.precision == "nf4")
        self.vocabulary = SHAPES[options.model]["vocab_size"]
        self.base_bytes = torch.cuda.memory_allocated() if self.on_card else 0
        self.model = PackedModel(self._model(), fused=not options.unfused)
        if self.on_card:
            self.model.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=CHECKPOINTING)

    def _model(self) -> nn.Module:
        return assemble(self.options.model, self.weights, self.device, self.dtype)

    def rows(self, count: int, tokens: int) -> list[Row]:
        """Random rows, each with its last quarter as targets."""
        return rows_of(count, tokens, self.vocabulary)

    def members(self, count: int, targets: str) -> list[TrainingMember]:
        """Adapters that each train on a row of their own, for ever."""
        settings = TrainingSettings(gradient_accumulation_steps=1, schedule="constant", warmup_ratio=0.0)
        return [
            TrainingMember(self.model.new_adapter(self._config(targets, seed)), settings, self._plan(seed), self.half)
            for seed in range(count)
        ]

    def _plan(self, number: int) -> Endless:
        """The rows of one adapter's every step."""
        rows = self.options.rows
        return Endless(*range(number * rows, (number + 1) * rows))

    def _targets(self, name: str) -> tuple[str, ...]:
        return targets_of(self.options.model, name)

    def _config(self, targets: str, seed: int) -> TrialConfig:
        return TrialConfig(self.precision, RANK, 2.0 * RANK, self.options.dropout, self._targets(targets), 1e-4, seed)

    def peft_step(self, targets: str, rows: Sequence[Row]) -> Callable[[], object]:
        """One step of one adapter by PEFT, on rows of equal length."""
        model: Any = self._model()
        if self.on_card:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            model.enable_input_require_grads()
        config = peft.LoraConfig(
            r=RANK, lora_alpha=2 * RANK, lora_dropout=self.options.dropout,
            target_modules=list(self._targets(targets)), task_type="CAUSAL_LM",
        )  # fmt: skip
        model = peft.get_peft_model(model, config).train()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-4)
        scaler = torch.amp.GradScaler(enabled=self.half)
        ids = torch.tensor([row.tokens for row in rows], device=self.device)
        labels = ids.clone()
        labels[:, : rows[0].target_start] = -100

        def step() -> None:
            with torch.autocast(self.device.type, self.dtype, enabled=self.on_card):
                loss = model(input_ids=ids, labels=labels).loss
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            loss.item()

        return step

    def floor(self, tokens: int, targets: int) -> Callable[[], object]:
        """One step's products with frozen weights and dequantizations: `tokens` tokens, `targets` of them targets."""
        uses = self._uses()
        head = self.model.head
        widths = {width for linear, _ in uses for width in (linear.in_features, linear.out_features)} | set(head.shape)
        buffers = {
            width: torch.randn(tokens, width, device=self.device, dtype=self.dtype)
            for width in widths - {self.vocabulary}
        }
        size = min(targets, logits_chunk_rows(self.vocabulary, head.element_size()))
        logits = torch.randn(size, self.vocabulary, device=self.device, dtype=self.dtype)

        def step() -> None:
            for linear, forward in uses:
                weight = frozen_weight(linear, self.dtype)
                if forward:
                    torch.mm(buffers[linear.in_features], weight.t())
                else:
                    torch.mm(buffers[linear.out_features], weight)
            for start in range(0, targets, size):
                count = min(size, targets - start)
                torch.mm(buffers[head.shape[1]][:count], head.t())
                torch.mm(logits[:count], head)

        return step

    def _uses(self) -> list[tuple[nn.Module, bool]]:
        """Each use of a frozen linear layer, forward (True) or for an input's gradient (False).

        Under checkpointing all but the layer's last product are computed twice. Below the first layer's q, k and v
        there is nothing to train.
        """
        linears = [(name, layer.base) for name, layer in self.model.linears.items()]
        uses = [(linear, True) for _, linear in linears]
        uses += [(linear, True) for name, linear in linears if self.on_card and not name.endswith("down_proj")]
        lowest = {f"model.layers.0.self_attn.{leaf}_proj" for leaf in ("q", "k", "v", "qkv")}
        return uses + [(linear, False) for name, linear in linears if name not in lowest]


def _compute_dtype(precision: str, on_card: bool) -> torch.dtype:
    """What activations are computed in: fp16 under NF4 on a card, as on a T4."""
    computed = {"nf4": "fp16" if on_card else "fp32"}.get(precision, precision)
    return {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[computed]


def rows_of(count: int, tokens: int, vocabulary: int) -> list[Row]:
    """Random rows, each with its last quarter as targets."""
    generator = torch.Generator().manual_seed(tokens)
    drawn = torch.randint(vocabulary, (count, tokens), generator=generator).tolist()
    start = tokens - round(tokens * TARGET_SHARE)
    return [Row(tuple(row), start, None, str(number)) for number, row in enumerate(drawn)]


class Endless:
    """A plan that takes the same rows at every step, in one micro-batch."""

    def __init__(self, *rows: int) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return MANY_STEPS

    def __getitem__(self, step: int) -> tuple[tuple[int, ...], ...]:
        return (self._rows,)
