"""Times a step of a pack whose adapters differ in rank and targets: padded, not padded, one by one.

    python -m tests.benchmarks.mixed_step --json OUT
    python -m tests.benchmarks.mixed_step --device cpu --model tiny --tokens 32 --precisions fp32

Weights are random; sixteen adapters with dropout, of four ranks, on q and v or on all linear layers, twice each, have
four rows each. "Busy" is the time in which the card computes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from search_spaces.trial_config import TARGET_SETS, TrialConfig
from tests.benchmarks.support.device_time import interleaved
from tests.benchmarks.support.random_models import assemble, random_weights
from tests.benchmarks.support.shapes import SHAPES
from tests.benchmarks.support.step_bench import Endless, rows_of
from trainables.packed.member import TrainingMember
from trainables.packed.packed_model import PackedModel
from trainables.packed.training import train_step
from trainables.settings import TrainingSettings

RANKS, TARGETS, TWICE, ROWS_EACH = (4, 16, 64, 128), ("q_v", "all_linear"), 2, 4
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "nf4": torch.bfloat16}
DEAR = 2**30  # tokens' worth of work that another run costs: whatever the waste, packs are padded


def members_of(model: PackedModel, half: bool) -> list[TrainingMember]:
    """The adapters, each to train on its own four rows for ever."""
    settings = TrainingSettings(gradient_accumulation_steps=1, schedule="constant", warmup_ratio=0.0)
    made = []
    for number, (rank, targets, seed) in enumerate(product(RANKS, TARGETS, range(TWICE))):
        config = TrialConfig("nf4", rank, 2.0 * rank, 0.05, TARGET_SETS[targets], 1e-4, seed)
        plan: Any = Endless(*range(number * ROWS_EACH, (number + 1) * ROWS_EACH))
        made.append(TrainingMember(model.new_adapter(config), settings, plan, half))
    return made


def measure(options: argparse.Namespace, precision: str) -> list[dict[str, Any]]:
    """The three steps over one precision of the base model."""
    device, dtype = torch.device(options.device), DTYPES[precision]
    weights = random_weights(options.model, device, dtype, nf4=precision == "nf4")
    model = PackedModel(assemble(options.model, weights, device, dtype))
    members = members_of(model, half=dtype == torch.float16)
    rows = rows_of(len(members) * ROWS_EACH, options.tokens, SHAPES[options.model]["vocab_size"])

    def packed(run_tokens: int) -> None:
        model.run_tokens = run_tokens
        train_step(model, members, rows)

    def alone() -> None:
        for member in members:
            train_step(model, [member], rows)

    steps: dict[str, Callable[[], object]] = {
        "padded": partial(packed, DEAR), "apart": partial(packed, 0), "one by one": alone,
    }  # fmt: skip
    times = interleaved(steps, options.repeats, device)
    return [{"precision": precision, "step": name, **asdict(taken)} for name, taken in times.items()]


def table(lines: Sequence[dict[str, Any]]) -> str:
    """One line for each step: milliseconds by the wall and busy, and how many times as long as the padded one."""
    text = [f"{'precision':11}{'step':12}{'wall ms':>9}{'busy ms':>9}{'x padded':>10}"]
    padded = {line["precision"]: line["wall"] for line in lines if line["step"] == "padded"}
    for line in lines:
        busy = "-" if line["busy"] is None else f"{line['busy'] * 1e3:.0f}"
        times = line["wall"] / padded[line["precision"]]
        text.append(f"{line['precision']:11}{line['step']:12}{line['wall'] * 1e3:9.0f}{busy:>9}{times:10.2f}")
    return "\n".join(text)


def main() -> None:
    """Measures, prints a table and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--model", default="smollm2-135m", choices=sorted(SHAPES))
    parser.add_argument("--precisions", nargs="+", default=["bf16", "nf4"], choices=sorted(DTYPES))
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    lines = [line for precision in options.precisions for line in measure(options, precision)]
    print(table(lines))
    if options.json:
        options.json.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
