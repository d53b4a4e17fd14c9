"""Early stopping and packing together, against full training of the same configurations alone.

    python -m tests.benchmarks.stopping_makespan --model MODEL --source ori_pqal.json --work DIR --json OUT

The studies are equal but for `early_stopping` and `hardware.max_adapters_per_gpu: 1`. `--study packed` and
`--study alone` run one of them (on two cards of one machine at once, say) and leave what they measured in the work
folder, from where `--study none` compares them. Prints makespans, fronts and the mean pack size.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.benchmarks.study_makespan import ALL_LINEAR, timed

RANKS, RATES = (4, 16, 64, 128), (2.0e-4, 1.0e-3)
STUDIES = ("packed", "alone")
REFERENCE_PERPLEXITY = 60.0


def study_file(options: argparse.Namespace, packed: bool) -> dict[str, Any]:
    """The study, alone to the end or packed with stopping."""
    stopping = {"algorithm": "pareto_halving"} if packed else {"algorithm": "none"}
    return {
        "name": "stopping",
        "base_model": {"path": options.model},
        "dataset": {
            "name": "pubmedqa", "source": str(Path(options.source).resolve()), "max_tokens": 256,
            "train_examples": options.train_examples, "eval_examples": 64, "test_examples": 0,
        },
        "space": {
            "precision": {"choice": ["bf16", "nf4"] if options.gpu else ["fp32", "nf4"]},
            "rank": {"choice": list(RANKS)}, "target_modules": {"choice": [["q_proj", "v_proj"], ALL_LINEAR]},
            "learning_rate": {"choice": list(RATES)}, "lora_dropout": 0.05,
        },
        "search": {"algorithm": "grid"},
        "training": {
            "micro_batch_size": 4, "gradient_accumulation_steps": 1, "gradient_checkpointing": False, "evaluations": 1,
        },
        "early_stopping": stopping,
        "objectives": [
            {"metric": "perplexity", "direction": "minimize", "reference": REFERENCE_PERPLEXITY},
            {"metric": "peak_memory_bytes", "direction": "minimize", "reference": "8 GiB"},
        ],
        "hardware": {"gpu": "auto" if options.gpu else "cpu", "gpus": 1 if options.gpu else None,
                     "max_adapters_per_gpu": None if packed else 1},
        "adapters": "none",
    }  # fmt: skip


def run(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """One of the studies, as a process."""
    work = options.work.resolve()
    file, out = work / f"{name}.yaml", work / f"{name}-study"
    file.write_text(yaml.safe_dump(study_file(options, name == "packed")), encoding="utf-8")
    seconds = timed([sys.executable, "-m", "study", "run", str(file), "--out", str(out)], work / f"{name}.log")
    records = [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    return {
        "seconds": seconds,
        "records": [
            {"trial_id": one["trial_id"], "status": one["status"], "config": one["config"],
             **{key: one["measurements"][key] for key in
                ("perplexity", "peak_memory_bytes", "mean_pack_size", "train_steps", "wall_seconds")}}
            for one in records
        ],
        "front": json.loads((out / "pareto.json").read_text(encoding="utf-8")),
        "host_seconds": json.loads((out / "host_seconds.json").read_text(encoding="utf-8")),
    }  # fmt: skip


def compared(packed: dict[str, Any], alone: dict[str, Any]) -> dict[str, Any]:
    """What stopping and packing saved, and what they kept of the front."""
    configs, stopped = (
        {one["trial_id"]: json.dumps(one["config"], sort_keys=True) for one in study["records"]}
        for study in (alone, packed)
    )
    full = {configs[one["trial_id"]] for one in alone["front"]["front"]}
    kept = {stopped[one["trial_id"]] for one in packed["front"]["front"]}
    sizes = [one["mean_pack_size"] for one in packed["records"] if one["mean_pack_size"]]
    steps = [sum(one["train_steps"] or 0 for one in study["records"]) for study in (packed, alone)]
    return {
        "packed": packed, "alone": alone, "times_shorter": alone["seconds"] / packed["seconds"],
        "hypervolume_share": packed["front"]["hypervolume"] / (alone["front"]["hypervolume"] or math.nan),
        "front_members": len(full), "front_members_kept": len(full & kept), "steps_share": steps[0] / steps[1],
        "mean_pack_size": sum(sizes) / len(sizes),
    }  # fmt: skip


def print_table(answer: dict[str, Any]) -> None:
    """Makespans, fronts, pack size, and where the hosts' time went."""
    for name in STUDIES:
        print(f"{name:7} {answer[name]['seconds']:7.1f} s  {len(answer[name]['records'])} trials")
    for name in ("times_shorter", "hypervolume_share", "front_members", "front_members_kept", "steps_share",
                 "mean_pack_size"):  # fmt: skip
        print(f"{name:20} {answer[name]:.3f}")
    for name in STUDIES:
        for host, seconds in answer[name]["host_seconds"].items():
            print(name, host, {key: round(value, 1) for key, value in seconds.items()})


def main() -> None:
    """Runs what is asked for, prints a table and writes JSON once both studies are there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", required=True)
    parser.add_argument("--source", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--train-examples", type=int, default=256)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--study", choices=("both", "none", *STUDIES), default="both")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    files = {name: options.work / f"{name}.json" for name in STUDIES}
    for name, file in files.items():
        if options.study in (name, "both"):
            file.write_text(json.dumps(run(options, name), indent=1) + "\n", encoding="utf-8")
    if not all(file.exists() for file in files.values()):
        return
    answer = compared(**{name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items()})
    print_table(answer)
    if options.json:
        options.json.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
