"""Times what happens between trials' joining and their first packed step: making adapters, parking, measuring alone.

    python -m tests.benchmarks.footprint_seconds --json OUT
    python -m tests.benchmarks.footprint_seconds --device cpu --model tiny --tokens 32

Weights are random; four footprints (q and v or all linear layers, two ranks each) with four trials each. Afterwards the
pack takes a step, and one more trial of a fifth footprint joins, for which all others are moved aside.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import torch

from search_spaces.trial_config import TARGET_SETS, TrialConfig
from tests.benchmarks.support.random_models import assemble, random_weights
from tests.benchmarks.support.shapes import SHAPES
from tests.support.small_engines import INFO, Letters
from trainables.base_model.load import BaseModel
from trainables.dataset.prepared import PreparedDataset
from trainables.dataset.rows import Row, Split
from trainables.engine import engine as engine_module
from trainables.engine import measured_costs, parking
from trainables.engine.engine import Engine
from trainables.measure import training_cost
from trainables.protocol import JoinRequest
from trainables.settings import BaseModelSettings, DatasetSettings, HardwareSettings, TrainingSettings, TrialSettings

RANKS, TARGETS, SEEDS, LATER = (8, 16), ("q_v", "all_linear"), (0, 1, 2, 3), 32
WATCHED = (
    (measured_costs, "empty_caches"),
    (measured_costs, "measure_pass_cost"),
    (measured_costs, "measure_training_cost"),
    (measured_costs, "generated_tokens_per_second"),
    (training_cost, "generated_tokens_per_second"),
    (training_cost, "micro_step"),
    (training_cost, "apply_gradients"),
    (parking, "park"),
    (parking, "bring_back"),
    (Engine, "new_member"),
    (Engine, "join"),
    (engine_module, "warm_up"),
)


class Seconds:
    """Wall seconds and calls by name, the device's queued work included; what is called within counts in both."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.taken: defaultdict[str, list[float]] = defaultdict(list)

    def __call__(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same work, timed."""

        def timed(*arguments: Any, **more: Any) -> Any:
            began = self._now()
            try:
                return work(*arguments, **more)
            finally:
                self.taken[name].append(self._now() - began)

        return timed

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def report(self) -> dict[str, Any]:
        """Seconds in all, calls, and the first and the last call's own seconds, by name; then all is forgotten."""
        found = {
            name: {"seconds": sum(each), "calls": len(each), "first": each[0], "last": each[-1]}
            for name, each in self.taken.items()
        }
        self.taken.clear()
        return found


def make_engine(options: argparse.Namespace) -> Engine:
    """An engine over a model with random weights, on rows of one length."""
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    weights = random_weights(options.model, device, dtype, nf4=options.precision == "nf4")
    model = assemble(options.model, weights, device, dtype)
    settings = TrialSettings(
        BaseModelSettings("random"),
        DatasetSettings("mine", max_tokens=options.tokens),
        TrainingSettings(max_steps=30, micro_batch_size=1, gradient_accumulation_steps=1, evaluations=1),
        hardware=HardwareSettings(options.device, max_adapters_per_gpu=16),
    )
    base = BaseModel(model, Letters(), INFO, options.precision, dtype, device)
    vocabulary = SHAPES[options.model]["vocab_size"]
    splits = [_split(name, count, options.tokens, vocabulary) for name, count in (("train", 64), ("eval", 6))]
    return Engine(settings, base, PreparedDataset(*splits, Split("test", (), 0, 0), "print", (), {}))


def _split(name: str, count: int, tokens: int, vocabulary: int) -> Split:
    draw = random.Random(name)
    rows = [
        Row(tuple(draw.randrange(3, vocabulary) for _ in range(tokens)), tokens // 2, None, str(number))
        for number in range(count)
    ]
    return Split(name, tuple(rows), 0, 0)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Stage by stage, where the seconds went."""
    seconds = Seconds(torch.device(options.device))
    for home, name in WATCHED:
        if hasattr(home, name):
            setattr(home, name, seconds(f"{home.__name__.rpartition('.')[2]}.{name}", getattr(home, name)))
    engine = make_engine(options)
    stages: dict[str, Any] = {}

    def stage(name: str, work: Callable[[], object]) -> None:
        seconds("all", work)()
        stages[name] = seconds.report()

    def join(ranks: tuple[int, ...]) -> None:
        for rank, targets, seed in product(ranks, TARGETS, SEEDS if ranks == RANKS else (0,)):
            config = TrialConfig(options.precision, rank, 2.0 * rank, 0.05, TARGET_SETS[targets], 1e-4, seed)
            engine.join(JoinRequest(f"{rank}-{targets}-{seed}", 0, config))

    def measured() -> None:
        while any(one.stage == "measuring" for one in engine.residents.values()):
            engine.work()

    def step() -> None:
        before = {one.member.step for one in engine.residents.values()}
        while {one.member.step for one in engine.residents.values()} == before:
            engine.work()

    stage("warm-up", engine.warm_up)
    stage("16 trials join", lambda: join(RANKS))
    stage("4 footprints are measured", measured)
    stage("first step of the pack", step)
    stage("second step of the pack", step)
    stage("2 more trials join", lambda: join((LATER,)))
    stage("2 more footprints are measured", measured)
    costs = {str(one): vars(cost) for one, cost in engine._costs._known.items()}
    return {"stages": stages, "costs": costs}


def table(found: dict[str, Any]) -> str:
    """One line a stage and what ran in it."""
    lines = [f"{'':44}{'seconds':>9}{'calls':>7}{'first':>9}{'last':>9}"]
    for name, parts in found["stages"].items():
        for part, one in sorted(parts.items(), key=lambda item: (item[0] != "all", -item[1]["seconds"])):
            label = name if part == "all" else f"  {part}"
            lines.append(f"{label:44}{one['seconds']:9.3f}{one['calls']:7}{one['first']:9.3f}{one['last']:9.3f}")
    for name, cost in found["costs"].items():
        lines.append(f"{name}: {cost}")
    return "\n".join(lines)


def main() -> None:
    """Measures, prints a table, and writes the numbers where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--model", default="llama-3-8b", choices=SHAPES)
    parser.add_argument("--precision", default="nf4", choices=("nf4", "fp32", "bf16"))
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = measure(options)
    print(table(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
