"""Runs a 16-bit base model over two cards that are each too small for it, and compares their peaks with the prediction.

    python -m tests.benchmarks.several_cards --work DIR --tokenizer DIR --json OUT   # on two cards, Llama-3-8B's shapes

Both cards are capped at 14.56 GiB. fp16 trials take both together; NF4 trials follow, packed on each by itself.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.benchmarks.study_makespan import CASES, made_llama, study_file, timed, write_data

CASE = {**CASES["cuda"], "precisions": ["fp16", "nf4"], "ranks": [8, 64], "rates": [1.0e-4], "steps": 5, "train": 16}
GIB = 2**30


def predicted(study: Path, record: dict[str, Any]) -> list[int]:
    """Each card's predicted peak, in the order of the model's layers."""
    from search_spaces.trial_config import TrialConfig
    from study.config.study_config import load_study
    from study.hardware.targets import target_here
    from study.plan.fitting import fit
    from study.plan.forecast import workload_of
    from study.plan.preflight import Preflight
    from trainables.base_model.files import inspect

    config = load_study(study)
    shape = inspect(config.trial.base_model, weights=False).shape
    workload = workload_of(config, Preflight(0, shape.model_type, record["dataset"]["statistics"], shape))
    assert workload is not None
    target = target_here(config.trial.hardware)
    return [one.peak_memory_bytes for one in fit(TrialConfig.from_dict(record["config"]), workload, target).predictions]


def main() -> None:
    """Runs the study, prints a table, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    work = options.work.resolve()
    model = made_llama(work, options.tokenizer)
    write_data(work / "two-data", CASE["train"], CASE["eval"])
    file, out = work / "two.yaml", work / "two-study"
    study = study_file(CASE, "cuda", model, work / "two-data")
    study["hardware"]["base_in_host_memory"] = "never"  # or layers would wait there, and one card would do
    file.write_text(yaml.safe_dump(study), encoding="utf-8")
    seconds = timed([sys.executable, "-m", "study", "run", str(file), "--out", str(out)], work / "two.log")
    rows = []
    for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        device = record["device"]
        peak = record["measurements"]["peak_memory_bytes"]
        measured = device.get("card_peak_memory_bytes") or ([peak] if peak else [])
        rows.append({
            "config": record["config"], "status": record["status"], "reason": record["reason"], "device": device,
            "measurements": record["measurements"], "measured_bytes": measured,
            "predicted_bytes": predicted(file, record) if measured else [],
        })  # fmt: skip
    for row in rows:
        pairs = zip(row["measured_bytes"], row["predicted_bytes"], strict=False)
        cards = ", ".join(f"{there / GIB:.2f} ({said / GIB:.2f} predicted)" for there, said in pairs)
        speed = row["measurements"]["train_tokens_per_second"] or 0
        config, perplexity = row["config"], row["measurements"]["perplexity"]
        name = f"{config['precision']} r{config['rank']} {len(config['target_modules'])} targets {row['status']}"
        print(f"{name}: {cards} GiB, {speed:.0f} tokens/s alone, perplexity {perplexity}")
    print(f"{seconds:.0f} s in all")
    if options.json:
        options.json.write_text(json.dumps({"seconds": seconds, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
