"""Measures how far fp16 training in a pack differs from training alone.

    python -m tests.benchmarks.half_spread --model MODEL --device cuda --json OUT

Eight members of different rank, alpha, targets, learning rate, batch and seed take 50 steps over real rows: alone,
together, alone with every row in a pass of its own (the same mathematics in products of other shapes, summed in
another order; without dropout, whose masks go by the micro-batch), and alone again. Prints the largest differences of
losses and final perplexities from the first.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tests.support.trainables.packed_cases import make_member
from trainables.base_model.load import load_base_model
from trainables.dataset.batches import batch_plan
from trainables.dataset.prepared import PreparedDataset, prepare_dataset
from trainables.measure.evaluation import evaluate_together
from trainables.packed.member import TrainingMember
from trainables.packed.packed_model import PackedModel
from trainables.packed.passes import PassLimits
from trainables.packed.training import WHOLE_STEP, train_step
from trainables.settings import BaseModelSettings, DatasetSettings

STEPS, MEMBERS = 50, 8
ONE_BY_ONE = PassLimits(max_tokens=1, fixed_tokens=0)
LEARNING_RATE_SHARE = 0.1  # of MEMBERS' own, which are for a random model


def members_of(
    model: PackedModel, dataset: PreparedDataset, numbers: Sequence[int], half: bool, row_by_row: bool
) -> list[TrainingMember]:
    """Fresh members, always equal; `row_by_row` parts the same rows of each step into micro-batches of one."""
    found = []
    for number in numbers:
        one = make_member(model, dataset.train.rows, number, STEPS)
        config, training = one.adapter.config, one.training
        gentle = {"learning_rate": config.learning_rate * LEARNING_RATE_SHARE, "lora_dropout": 0.0}
        again = make_member(model, dataset.train.rows, number, STEPS, **gentle)
        if row_by_row:
            rows = training.micro_batch_size * training.gradient_accumulation_steps
            training = replace(training, micro_batch_size=1, gradient_accumulation_steps=rows)
        plan = batch_plan(len(dataset.train.rows), training, config.seed)
        found.append(TrainingMember(again.adapter, training, plan, half))
    return found


@dataclass(frozen=True)
class Run:
    """Losses by step and final perplexities, by member."""

    losses: dict[int, list[float]]
    perplexities: dict[int, float]


def train(
    model: PackedModel, dataset: PreparedDataset, packs: Sequence[Sequence[int]], limits: PassLimits, half: bool
) -> Run:
    """Losses by step and final perplexities of every member, trained in these packs."""
    losses: dict[int, list[float]] = {}
    perplexities: dict[int, float] = {}
    for numbers in packs:
        members = members_of(model, dataset, numbers, half, limits == ONE_BY_ONE)
        for _ in range(STEPS):
            for number, result in zip(numbers, train_step(model, members, dataset.train.rows, limits), strict=True):
                losses.setdefault(number, []).append(result.loss)
        adapters = [member.adapter for member in members]
        for number, one in zip(numbers, evaluate_together(model, adapters, dataset.eval.rows, None, 2048), strict=True):
            perplexities[number] = one.perplexity
    return Run(losses, perplexities)


def difference(name: str, one: Run, first: Run) -> dict[str, Any]:
    """The largest differences between two runs, over the members."""
    members = one.perplexities
    return {
        "run": name,
        "first_step": max(abs(one.losses[n][0] - first.losses[n][0]) for n in members),
        "last_step": max(abs(one.losses[n][-1] - first.losses[n][-1]) for n in members),
        "perplexity": max(abs(one.perplexities[n] / first.perplexities[n] - 1) for n in members),
        "by_member": {n: one.perplexities[n] / first.perplexities[n] - 1 for n in members},
    }


def main() -> None:
    """Trains four times, prints a table, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", required=True)
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    base = load_base_model(BaseModelSettings(options.model), options.precision, options.device)
    base.model.train()
    settings = DatasetSettings(
        "pubmedqa", "sample", max_tokens=128, train_examples=48, eval_examples=16, test_examples=0
    )
    dataset, model = prepare_dataset(settings, base.tokenizer), PackedModel(base.model)
    half = base.compute_dtype == torch.float16
    alone, together = [[number] for number in range(MEMBERS)], [list(range(MEMBERS))]
    runs = {
        "alone": (alone, WHOLE_STEP),
        "in a pack of 8": (together, WHOLE_STEP),
        "alone, row by row": (alone, ONE_BY_ONE),
        "alone again": (alone, WHOLE_STEP),
    }
    first: Run | None = None
    about = {"model": Path(options.model).name, "precision": options.precision, "device": options.device}
    report: dict[str, Any] = {**about, "rows": []}
    print(f"{options.precision}, {options.device}; largest differences from the first run")
    for name, (packs, limits) in runs.items():
        one = train(model, dataset, packs, limits, half)
        first = first or one
        row = difference(name, one, first)
        print(f"{name:22} loss of step 1 {row['first_step']:.2e}  of step {STEPS} {row['last_step']:.2e}  "
              f"perplexity {100 * row['perplexity']:.4f} %", flush=True)  # fmt: skip
        report["rows"].append(row)
        report |= {"losses": first.losses, "perplexities": first.perplexities}
        if options.json:  # after each run: a long one that is broken off has shown something
            options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
