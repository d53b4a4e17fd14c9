"""Records the whole training curves of many configurations, for the replays of search and early stopping.

    python -m tests.benchmarks.search.record_curves --model MODEL --source ori_pqal.json --out FILE.json

No trial is stopped and none runs beside another process; Ray is not started. With `--device cuda` the memory of a
configuration is the allocator's measured peak; on a CPU, where a process' resident peak is mostly interpreter and
libraries, it is computed: the base model's bytes, and 16 bytes for each trainable parameter (weight, gradient, and
AdamW's two moments in fp32).
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from search_spaces.trial_config import TARGET_SETS, TrialConfig
from trainables.settings import (
    BaseModelSettings,
    DatasetSettings,
    GenerationSettings,
    HardwareSettings,
    TrainingSettings,
    TrialSettings,
)

RANKS = (2, 4, 8, 16, 32, 64, 128)
BYTES_PER_TRAINABLE_PARAMETER = 16
PRECISIONS = {"cpu": ("fp32", "nf4"), "cuda": ("bf16", "nf4")}


def configurations(
    count: int, precisions: Sequence[str], learning_rates: tuple[float, float], seed: int
) -> list[TrialConfig]:
    """`count` configurations spread evenly over precision, target modules and rank, learning rates log-uniform.

    The learning rates are a shuffled stratified sample, so that a small table covers their whole range.
    """
    generator = random.Random(seed)
    footprints = list(itertools.product(precisions, TARGET_SETS, RANKS))
    generator.shuffle(footprints)
    low, high = (math.log(rate) for rate in learning_rates)
    places = [(number + generator.random()) / count for number in range(count)]
    generator.shuffle(places)
    rates = [math.exp(low + place * (high - low)) for place in places]
    return [_configuration(footprints[n % len(footprints)], rates[n], seed) for n in range(count)]


def _configuration(footprint: tuple[str, str, int], rate: float, seed: int) -> TrialConfig:
    precision, targets, rank = footprint
    values = {"precision": precision, "rank": rank, "lora_alpha": 2 * rank, "lora_dropout": 0.0, "seed": seed}
    return TrialConfig.from_dict({**values, "target_modules": targets, "learning_rate": float(f"{rate:.4g}")})


def trial_settings(options: argparse.Namespace) -> TrialSettings:
    """The settings of the recorded study."""
    dataset = DatasetSettings(
        name="pubmedqa",
        source=options.source,
        max_tokens=options.max_tokens,
        train_examples=options.train_examples,
        eval_examples=options.eval_examples,
        test_examples=0,
        seed=options.dataset_seed,
    )
    training = TrainingSettings(
        epochs=1e6,
        max_steps=options.steps,
        micro_batch_size=options.batch_size,
        gradient_accumulation_steps=1,
        gradient_checkpointing=options.device == "cuda",
        evaluations=options.evaluations,
    )
    hardware = HardwareSettings(gpu=options.device, max_adapters_per_gpu=options.pack)
    return TrialSettings(BaseModelSettings(options.model), dataset, training, GenerationSettings(), hardware)


def record_precision(
    settings: TrialSettings, precision: str, configs: Sequence[TrialConfig], options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Trains the configurations of one precision on one base model, a pack at a time; yields each as it ends."""
    from trainables.actors.host_loading import HostSettings, make_engine
    from trainables.protocol import JoinRequest

    host = HostSettings(settings, f"{precision} of {options.model}", precision, options.device, options.threads)
    engine = make_engine(host)
    base_bytes = sum(parameter.numel() * parameter.element_size() for parameter in engine.base.model.parameters())
    waiting = {f"{precision}-{number:03}": config for number, config in enumerate(configs)}
    joined: dict[str, TrialConfig] = {}
    while waiting or engine.residents:
        while waiting and len(engine.residents) < options.pack:
            trial_id = next(iter(waiting))
            joined[trial_id] = waiting.pop(trial_id)
            engine.join(JoinRequest(trial_id, 0, joined[trial_id]))
        engine.work()
        for trial_id, resident in list(engine.residents.items()):
            resident.awaiting_since = None  # nobody stops it
            if resident.outcome:
                yield curve_entry(trial_id, joined[trial_id], resident.outcome, base_bytes, options.device)
                engine.leave(trial_id, 0)


def curve_entry(trial_id: str, config: TrialConfig, outcome: Any, base_bytes: int, device: str) -> dict[str, Any]:
    """One line of the table; perplexities that are not finite end a curve, as they end a trial."""
    measured = outcome.measurements
    computed = base_bytes + BYTES_PER_TRAINABLE_PARAMETER * measured["trainable_parameters"]
    peak = measured.get("peak_memory_bytes")
    return {
        "trial_id": trial_id,
        "config": config.to_dict(),
        "status": outcome.status,
        "reason": outcome.reason,
        "memory_bytes": peak if device == "cuda" and peak is not None else computed,
        "measured_peak_bytes": peak,
        "computed_bytes": computed,
        "trainable_parameters": measured["trainable_parameters"],
        "base_perplexity": measured.get("base_perplexity"),
        "seconds_per_epoch": measured.get("seconds_per_epoch"),
        "curve": [[point["step"], point["perplexity"]] for point in outcome.curve],
    }


def record(options: argparse.Namespace) -> dict[str, Any]:
    """The whole table; written anew after every trial, so that an interrupted recording is not lost."""
    import torch

    started = time.perf_counter()
    settings = trial_settings(options)
    precisions = PRECISIONS[options.device]
    configs = configurations(options.configurations, precisions, tuple(options.learning_rates), options.seed)
    table = {
        "about": {
            "base_model": Path(options.model).name,
            "dataset": f"pubmedqa, {options.train_examples} rows of training, {options.eval_examples} of evaluation",
            "device": torch.cuda.get_device_name() if options.device == "cuda" else "CPU",
            "memory": "allocator peak, alone" if options.device == "cuda" else "computed: base model + 16 B/parameter",
            "total_steps": options.steps,
            "rows_per_step": options.batch_size,
            "max_tokens": options.max_tokens,
            "dataset_seed": options.dataset_seed,
            "seed": options.seed,
            "pack": options.pack,
            "torch": torch.__version__,
        },
        "curves": [],
    }
    for precision in precisions:
        own = [config for config in configs if config.precision == precision]
        for entry in record_precision(settings, precision, own, options):
            table["curves"].append(entry)
            table["about"]["seconds"] = round(time.perf_counter() - started, 1)
            write_table(table, options.out)
            last = entry["curve"][-1] if entry["curve"] else None
            print(f"{table['about']['seconds']:8.1f} s  {entry['trial_id']}  {entry['status']}  {last}", flush=True)
    return table


def write_table(table: dict[str, Any], file: Path) -> None:
    """One curve a line, so that two recordings can be compared line by line."""
    lines = ",\n".join(json.dumps(entry) for entry in table["curves"])
    file.parent.mkdir(parents=True, exist_ok=True)
    text = f'{{"about": {json.dumps(table["about"], indent=1)},\n"curves": [\n{lines}\n]}}\n'
    file.write_text(text, encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a hub id, a folder, a .gguf file, or package:NAME/FILE")
    parser.add_argument("--source", required=True, help="PubMedQA's ori_pqal.json, its hub id, or `sample`")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--configurations", type=int, default=64)
    parser.add_argument("--learning-rates", type=float, nargs=2, default=(1e-4, 1e-2), metavar=("LOW", "HIGH"))
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--evaluations", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=8, help="rows of one optimizer step")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--train-examples", type=int, default=400)
    parser.add_argument("--eval-examples", type=int, default=50)
    parser.add_argument("--dataset-seed", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0, help="of configurations, adapters and the order of rows")
    parser.add_argument("--pack", type=int, default=4, help="adapters that train together")
    parser.add_argument("--threads", type=int, default=1, help="of a CPU")
    return parser


if __name__ == "__main__":
    record(_parser().parse_args())
