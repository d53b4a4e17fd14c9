"""Runs a study at the edge of a T4's memory: no admitted trial runs out, no refused one runs alone.

    python -m tests.benchmarks.edge_study --work DIR --tokenizer DIR --json OUT     # on a card, Llama-3-8B's shapes

24 NF4 configurations with rows of 1,024 tokens and no activation checkpointing, under a cap of 14.56 GiB. First the
study runs as a user would run it; then each refused configuration is measured alone under the same cap.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.benchmarks.study_makespan import CASES, made_llama, study_file, timed, write_data

RANKS = (2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 160, 192)
EDGE = {
    **CASES["cuda"], "ranks": RANKS, "rates": [1.0e-4], "steps": 3, "max_tokens": 1024, "micro_batch_size": 2,
    "train": 12, "eval": 4, "checkpointing": False,
}  # fmt: skip
GIB = 2**30


def run_study(file: Path, out: Path, log: Path) -> list[dict[str, Any]]:
    """Runs the study; returns its records."""
    timed([sys.executable, "-m", "study", "run", str(file), "--out", str(out)], log)
    return [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]


def alone(file: Path, configs: list[dict[str, Any]], results: Any) -> None:
    """Puts each configuration's peak alone under the cap, or what torch said where it ran out."""
    import torch

    from search_spaces.trial_config import TrialConfig
    from study.config.study_config import load_study
    from trainables.actors.host_loading import HostSettings, make_engine
    from trainables.measure.training_cost import measure_training_cost, measuring_plan
    from trainables.packed.member import TrainingMember

    study = load_study(file)
    settings = HostSettings(study.trial, "alone", "nf4", "cuda", 1)
    engine = make_engine(settings)
    rows, training = engine.dataset.train.rows, study.trial.training
    for values in configs:
        config, member = TrialConfig.from_dict(values), None
        try:
            member = engine.new_member(config, measuring_plan(rows, training.micro_batch_size))
            assert isinstance(member, TrainingMember)
            cost = measure_training_cost(engine._model, member, rows, rows[0].tokens[:64], 8)
            results.put({"config": values, "peak_memory_bytes": cost.peak_memory_bytes})
        except torch.OutOfMemoryError as error:
            results.put({"config": values, "peak_memory_bytes": None, "error": str(error).splitlines()[0][:120]})
            del error
        del member
        torch.cuda.empty_cache()


def main() -> None:
    """Runs study and refused configurations, prints a table, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    work, context = options.work.resolve(), multiprocessing.get_context("spawn")
    model = made_llama(work, options.tokenizer)
    write_data(work / "edge-data", EDGE["train"], EDGE["eval"])
    file = work / "edge.yaml"
    file.write_text(yaml.safe_dump(study_file(EDGE, "cuda", model, work / "edge-data")), encoding="utf-8")
    records = run_study(file, work / "edge-study", work / "edge.log")
    refused = [one["config"] for one in records if (one["infeasible"] or {}).get("source") == "predicted"]
    queue = context.Queue()
    tester = context.Process(target=alone, args=(file, refused, queue))
    tester.start()
    tested = [queue.get(timeout=300) for _ in refused]
    tester.join()
    report = {"case": EDGE, "device": records[-1]["device"], "records": records, "refused_alone": tested}
    print(table(records, tested))
    if options.json:
        options.json.write_text(json.dumps(slim(report), indent=1) + "\n", encoding="utf-8")


def slim(report: dict[str, Any]) -> dict[str, Any]:
    """Keeps of each record what this is about."""
    kept = ("status", "reason", "config", "predictions", "infeasible")
    records = [
        {**{name: one[name] for name in kept}, "peak_memory_bytes": one["measurements"]["peak_memory_bytes"]}
        for one in report["records"]
    ]
    return {**report, "records": records}


def table(records: list[dict[str, Any]], tested: list[dict[str, Any]]) -> str:
    """Every configuration in a line, then the counts."""
    lines = []
    for one in records:
        config, predicted = one["config"], one["predictions"].get("peak_memory_bytes") or 0
        peak = one["measurements"]["peak_memory_bytes"]
        shown = f"{peak / GIB:6.2f} GiB measured" if peak else f"{one['reason']}"[:60]
        targets = len(config["target_modules"])
        lines.append(
            f"r{config['rank']:<4}{targets} targets {one['status']:10} {predicted / GIB:6.2f} predicted  {shown}"
        )
    ran_out = sum((one["infeasible"] or {}).get("source") == "observed" for one in records)
    wrong = [one for one in tested if one["peak_memory_bytes"]]
    complete = sum(one["status"] == "complete" for one in records)
    lines.append(f"{complete} complete; admitted and ran out: {ran_out}; refused: {len(tested)}; of them run alone:")
    lines += [f"  r{one['config']['rank']} {one['peak_memory_bytes'] / GIB:.2f} GiB" for one in wrong] or ["  none"]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
