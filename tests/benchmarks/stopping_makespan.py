"""Times early stopping and packing together against full training of each configuration alone.

    python -m tests.benchmarks.stopping_makespan --model MODEL --source ori_pqal.json --work DIR --json OUT

The studies are equal but for `early_stopping` and `hardware.max_adapters_per_gpu: 1`. `--study NAME` runs one part and
leaves what it measured in the work folder, from where `--study none` compares: `packed`, and the full training in four
parts, by precision and target layers, so that two cards of one machine can share the wait. Of the parts of the full
training the start is counted once, as if they were one study; no footprint is in two of them. Prints makespans, fronts
and the mean pack size.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from analysis.pareto import hypervolume, non_dominated
from study.records.timeline.file import read_timeline
from study.records.timeline.milestones import host_seconds
from tests.benchmarks.study_makespan import TARGETS, timed

RANKS = (4, 16, 64, 128)
PARTS = ("packed", *(f"alone-{precision}-{targets}" for precision in ("16bit", "nf4") for targets in TARGETS))
REFERENCE = (30.0, 2.0 * 2**30)  # perplexity, bytes


def study_file(options: argparse.Namespace, part: str) -> dict[str, Any]:
    """The study packed with stopping, or a part of it alone to the end."""
    packed, full = part == "packed", "bf16" if options.gpu else "fp32"
    precisions, targets = [full, "nf4"], list(TARGETS.values())
    if not packed:
        _, precision, name = part.split("-")
        precisions, targets = [full if precision == "16bit" else precision], [TARGETS[name]]
    stopping = {"algorithm": "pareto_halving"} if packed else {"algorithm": "none"}
    return {
        "name": "stopping",
        "base_model": {"path": options.model},
        "dataset": {
            "name": "pubmedqa", "source": str(Path(options.source).resolve()), "max_tokens": 256,
            "train_examples": options.train_examples, "eval_examples": 64, "test_examples": 0,
        },
        "space": {
            "precision": {"choice": precisions},
            "rank": {"choice": list(RANKS)}, "target_modules": {"choice": targets},
            "learning_rate": {"choice": options.rates}, "lora_dropout": 0.05,
        },
        "search": {"algorithm": "grid"},
        "training": {
            "micro_batch_size": 4, "gradient_accumulation_steps": 1, "gradient_checkpointing": False, "evaluations": 1,
        },
        "early_stopping": stopping,
        "objectives": [
            {"metric": "perplexity", "direction": "minimize", "reference": REFERENCE[0]},
            {"metric": "peak_memory_bytes", "direction": "minimize", "reference": "2 GiB"},
        ],
        "hardware": {"gpu": "auto" if options.gpu else "cpu", "gpus": 1 if options.gpu else None,
                     "max_adapters_per_gpu": None if packed else 1},
        "adapters": "none",
    }  # fmt: skip


def run(options: argparse.Namespace, part: str) -> dict[str, Any]:
    """One of the studies, as a process."""
    work = options.work.resolve()
    file, out = work / f"{part}.yaml", work / f"{part}-study"
    file.write_text(yaml.safe_dump(study_file(options, part)), encoding="utf-8")
    seconds = timed([sys.executable, "-m", "study", "run", str(file), "--out", str(out)], work / f"{part}.log")
    records = [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    return {
        "seconds": seconds,
        "records": [
            {"status": one["status"], "config": one["config"],
             **{key: one["measurements"][key] for key in
                ("perplexity", "peak_memory_bytes", "mean_pack_size", "train_steps", "wall_seconds")}}
            for one in records
        ],
        "host_seconds": host_seconds(read_timeline(out)[-1]),
    }  # fmt: skip


def as_one_study(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Parts run apart as one study: all that they took from their first steps on, and the longest start once."""
    at_work = [sum(seconds["all"] for seconds in part["host_seconds"].values()) for part in parts]
    starts = [part["seconds"] - working for part, working in zip(parts, at_work, strict=True)]
    return {
        "seconds": sum(at_work) + max(starts),
        "records": [record for part in parts for record in part["records"]],
        "host_seconds": {name: seconds for part in parts for name, seconds in part["host_seconds"].items()},
    }


def front_of(study: dict[str, Any]) -> tuple[set[str], float]:
    """The configurations on a study's front, of those trained to their end, and its hypervolume."""
    complete = [one for one in study["records"] if one["status"] == "complete"]
    points = [(one["perplexity"], one["peak_memory_bytes"]) for one in complete]
    on_front = non_dominated(points)
    members = {key_of(one) for one, is_on in zip(complete, on_front, strict=True) if is_on}
    return members, hypervolume(points, REFERENCE)


def key_of(record: dict[str, Any]) -> str:
    """A configuration as text, to find it in another study."""
    return json.dumps(record["config"], sort_keys=True)


def compared(packed: dict[str, Any], alone: dict[str, Any]) -> dict[str, Any]:
    """What stopping and packing saved, and what they kept of the front."""
    (kept, kept_volume), (full, full_volume) = front_of(packed), front_of(alone)
    known = {key_of(one): one["perplexity"] for one in alone["records"]}
    unlike = [abs(one["perplexity"] / known[key_of(one)] - 1) for one in packed["records"]
              if one["status"] == "complete"]  # fmt: skip
    sizes = [one["mean_pack_size"] for one in packed["records"] if one["mean_pack_size"]]
    steps = [sum(one["train_steps"] or 0 for one in study["records"]) for study in (packed, alone)]
    return {
        "packed": packed, "alone": alone, "times_shorter": alone["seconds"] / packed["seconds"],
        "hypervolume_share": kept_volume / (full_volume or math.nan), "front_members": len(full),
        "front_members_kept": len(full & kept), "steps_share": steps[0] / steps[1],
        "mean_pack_size": sum(sizes) / len(sizes), "perplexity_apart": max(unlike),
    }  # fmt: skip


def print_table(report: dict[str, Any]) -> None:
    """Makespans, fronts, pack size, and where the hosts' time went."""
    for name in ("packed", "alone"):
        print(f"{name:7} {report[name]['seconds']:7.1f} s  {len(report[name]['records'])} trials")
    for name, value in report.items():
        if not isinstance(value, dict):
            print(f"{name:20} {value:.4g}")
    for name in ("packed", "alone"):
        for host, seconds in report[name]["host_seconds"].items():
            print(name, host, {key: round(value, 1) for key, value in seconds.items()})


def main() -> None:
    """Runs what is asked for, prints a table and writes JSON once all parts are there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", required=True)
    parser.add_argument("--source", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--train-examples", type=int, default=256)
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-4, 2e-4, 5e-4, 1e-3], help="learning rates")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--study", choices=("all", "none", *PARTS), default="all")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    files = {part: options.work / f"{part}.json" for part in PARTS}
    for part, file in files.items():
        if options.study in (part, "all"):
            file.write_text(json.dumps(run(options, part), indent=1) + "\n", encoding="utf-8")
    if not all(file.exists() for file in files.values()):
        return
    packed, *alone = (json.loads(file.read_text(encoding="utf-8")) for file in files.values())
    report = compared(packed, as_one_study(alone))
    print_table(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
