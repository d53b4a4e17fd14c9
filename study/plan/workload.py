"""Describes the work that all trials of a study share: model, rows and lengths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainables.base_model.shape import ModelShape
from trainables.settings import BaseInHostMemory, TrainingSettings


@dataclass(frozen=True)
class Workload:
    """What all trials of a study share: the model, how it trains, and the lengths of the data's rows.

    `longest` is the longest training row's tokens, `train_tokens` and `eval_tokens` are sums over the splits (what is
    measured on the way: the evaluation split), `target_share` is the part of all tokens that are targets.
    """

    shape: ModelShape
    training: TrainingSettings
    longest: int
    train_rows: int
    train_tokens: int
    eval_tokens: int
    target_share: float
    double_quantization: bool = True
    force_bf16: bool = False
    base_in_host_memory: BaseInHostMemory = "auto"

    @classmethod
    def of(
        cls,
        shape: ModelShape,
        training: TrainingSettings,
        statistics: Mapping[str, Mapping[str, Any]],
        double_quantization: bool = True,
        force_bf16: bool = False,
        base_in_host_memory: BaseInHostMemory = "auto",
    ) -> Workload:
        """From the statistics of a prepared dataset, by split."""
        train, evaluation = statistics["train"], statistics["eval"]
        return cls(
            shape=shape,
            training=training,
            longest=train["max_length"],
            train_rows=train["rows"],
            train_tokens=train["tokens"],
            eval_tokens=evaluation["tokens"],
            target_share=train["target_tokens"] / train["tokens"],
            double_quantization=shape.doubly_quantized(double_quantization),
            force_bf16=force_bf16,
            base_in_host_memory=base_in_host_memory,
        )
