"""Times a whole study against a plain Ray Tune script over the same model, data and configurations.

    python -m tests.benchmarks.study_makespan --device cuda --work DIR --json OUT     # 16 NF4 trials, Llama-3-8B shapes
    python -m tests.benchmarks.study_makespan --device cpu --work DIR --json OUT      # 8 trials, SmolLM2-135M

Both are timed as processes, from the command to its end, interpreter and Ray included. `--plain-trials N` runs only N
of the plain script's trials and says what the rest would take at their mean; on a card they run one at a time, since
two copies do not fit, so that is a sum. The study runs twice: first as on a new machine, then with its caches filled.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from search_spaces.trial_config import TARGET_SETS
from study.records.timeline.file import read_timeline
from study.records.timeline.milestones import host_seconds
from tests.support.places import ROOT

TARGETS = {name: list(modules) for name, modules in TARGET_SETS.items()}
LLAMA_3_8B = {
    "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 8192, "rope_theta": 500000.0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "cuda": {
        "precisions": ["nf4"], "ranks": [8, 16], "rates": [5.0e-5, 1.0e-4, 2.0e-4, 4.0e-4], "steps": 30,
        "max_tokens": 512, "micro_batch_size": 1, "train": 64, "eval": 16, "checkpointing": True,
        "memory_limit": "14.56 GiB",
    },
    "cpu": {
        "precisions": ["nf4"], "ranks": [4, 16], "rates": [5.0e-4, 1.0e-3], "steps": 10, "max_tokens": 96,
        "micro_batch_size": 1, "train": 48, "eval": 8, "checkpointing": False, "memory_limit": None,
    },
}  # fmt: skip


def random_llama(folder: Path, tokenizer: Path) -> None:
    """Saves a Llama of Llama-3-8B's shapes with random bf16 weights, made on the card."""
    import shutil

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    if (folder / "config.json").exists():
        return
    with torch.device("cuda"):
        torch.set_default_dtype(torch.bfloat16)
        model = LlamaForCausalLM(LlamaConfig(**LLAMA_3_8B))
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(str(folder))
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        if (tokenizer / name).exists():
            shutil.copy(tokenizer / name, folder / name)


def made_llama(work: Path, tokenizer: Path | None) -> Path:
    """`random_llama` in the work folder, by a process of its own, which gives the card back."""
    model = work / "llama-3-8b-shapes"
    work.mkdir(parents=True, exist_ok=True)
    builder = multiprocessing.get_context("spawn").Process(target=random_llama, args=(model, tokenizer))
    builder.start()
    builder.join()
    return model


def smollm2(folder: Path) -> Path:
    """SmolLM2-135M as a folder of safetensors, from the package that carries it."""
    from trainables.base_model.files import weights_folder
    from trainables.base_model.location import locate
    from trainables.settings import BaseModelSettings

    settings = yaml.safe_load((ROOT / "study/studies/quickstart.yaml").read_text(encoding="utf-8"))["base_model"]
    return weights_folder(locate(BaseModelSettings(settings["path"])))


def write_data(folder: Path, train: int, evaluation: int) -> None:
    """The project's sample rows as JSON Lines; each is repeated until it is long enough to be cut at `max_tokens`."""
    from trainables.dataset.pubmedqa import pubmedqa_pool

    examples, _ = pubmedqa_pool("sample")
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", examples[:train]), ("eval", examples[train : train + evaluation])):
        rows = [{"prompt": (one.prompt + " ") * 12, "completion": one.completion} for one in part]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def configurations(case: dict[str, Any]) -> list[dict[str, Any]]:
    """The grid, as the plain script takes it."""
    return [
        {"precision": precision, "rank": rank, "target_modules": TARGETS[targets], "learning_rate": rate}
        for precision, rank, targets, rate in product(case["precisions"], case["ranks"], TARGETS, case["rates"])
    ]


def study_file(case: dict[str, Any], device: str, model: Path, data: Path) -> dict[str, Any]:
    """The same grid as a study file."""
    return {
        "name": f"makespan-{device}",
        "base_model": {"path": str(model)},
        "dataset": {
            "name": "rows", "train_file": str(data / "train.jsonl"), "eval_file": str(data / "eval.jsonl"),
            "max_tokens": case["max_tokens"],
        },
        "space": {
            "precision": {"choice": case["precisions"]}, "rank": {"choice": case["ranks"]},
            "target_modules": {"choice": list(TARGETS)}, "learning_rate": {"choice": case["rates"]},
        },
        "search": {"algorithm": "grid"},
        "training": {
            "epochs": 10, "max_steps": case["steps"], "micro_batch_size": case["micro_batch_size"],
            "gradient_accumulation_steps": 1, "gradient_checkpointing": case["checkpointing"], "evaluations": 1,
        },
        "objectives": [
            {"metric": "perplexity", "direction": "minimize", "reference": 1.0e6},
            {"metric": "peak_memory_bytes", "direction": "minimize", "reference": "16 GiB"},
        ],
        "hardware": {"gpu": "cpu" if device == "cpu" else "auto", "memory_limit": case["memory_limit"]},
        "adapters": "none",
    }  # fmt: skip


def timed(command: list[str], log: Path) -> float:
    """Seconds of a whole process; its output goes to a file. Raises where it fails."""
    environment = {**os.environ, "RAY_TRAIN_V2_ENABLED": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1"}
    started = time.perf_counter()
    with log.open("w", encoding="utf-8") as out:
        status = subprocess.run(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, env=environment, check=False)
    seconds = time.perf_counter() - started
    if status.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {status.returncode}:\n{log.read_text()[-3000:]}")
    return seconds


def study_seconds(case: dict[str, Any], device: str, model: Path, work: Path) -> tuple[float, Path]:
    """Runs the study; returns its seconds as a whole process, and its directory."""
    file, out = work / "study.yaml", work / f"study-{time.time_ns()}"
    file.write_text(yaml.safe_dump(study_file(case, device, model, work / "data")), encoding="utf-8")
    command = [sys.executable, "-m", "study", "run", str(file), "--out", str(out)]
    return timed(command, work / "study.log"), out


def run_ours(case: dict[str, Any], device: str, model: Path, work: Path) -> dict[str, Any]:
    """Runs the study; returns its seconds, and where its hosts' time went."""
    seconds, out = study_seconds(case, device, model, work)
    records = [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    measures = [record["measurements"] for record in records]
    return {
        "seconds": seconds,
        "statuses": [record["status"] for record in records],
        "mean_pack_size": statistics.mean(one["mean_pack_size"] for one in measures if one["mean_pack_size"]),
        "peak_memory_bytes": [one["peak_memory_bytes"] for one in measures],
        "host_seconds": host_seconds(read_timeline(out)[-1]),
    }


def run_plain(case: dict[str, Any], device: str, model: Path, work: Path, trials: int) -> dict[str, Any]:
    """Runs (some of) the plain script's trials; returns what all of them take."""
    every = configurations(case)
    chosen = every[:: max(1, len(every) // trials)][:trials]
    limit = case["memory_limit"]
    shared = {
        "model": str(model), "data": str(work / "data"), "steps": case["steps"], "max_tokens": case["max_tokens"],
        "micro_batch_size": case["micro_batch_size"], "checkpointing": case["checkpointing"],
        "memory_limit_bytes": round(float(limit.split()[0]) * 2**30) if limit else None,
    }  # fmt: skip
    (work / "plain_settings.json").write_text(json.dumps(shared), encoding="utf-8")
    (work / "plain_configurations.json").write_text(json.dumps(chosen), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.support.plain_tune",
        "--settings",
        str(work / "plain_settings.json"),
    ]
    command += ["--configurations", str(work / "plain_configurations.json"), "--json", str(work / "plain.json")]
    command += ["--gpus", "1", "--cpus", "8"] if device == "cuda" else ["--concurrent", "2"]
    seconds = timed(command, work / "plain.log")
    plain = json.loads((work / "plain.json").read_text(encoding="utf-8"))
    if plain["errors"]:
        raise SystemExit(f"plain trials failed: {plain['errors']}")
    return {**plain, "seconds": seconds, "run": len(chosen), "all_seconds": seconds * len(every) / len(chosen)}


def main() -> None:
    """Runs both, prints a table, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", choices=list(CASES), required=True)
    parser.add_argument("--work", type=Path, required=True, help="a folder for model, data and results")
    parser.add_argument("--tokenizer", type=Path, help="a folder with tokenizer.json, for the random model")
    parser.add_argument("--plain-trials", type=int, help="how many of the plain script's trials to run (default: all)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    case, work = CASES[options.device], options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    model = smollm2(work) if options.device == "cpu" else made_llama(work, options.tokenizer)
    write_data(work / "data", case["train"], case["eval"])
    trials = len(configurations(case))
    ours = run_ours(case, options.device, model, work)
    again = run_ours(case, options.device, model, work)
    plain = run_plain(case, options.device, model, work, options.plain_trials or trials)
    report = {
        "device": _device_name(options.device),
        "trials": trials,
        "case": case,
        "ours": ours,
        "again": again,
        "plain": plain,
    }
    report["times_faster"] = plain["all_seconds"] / ours["seconds"]
    report["times_faster_again"] = plain["all_seconds"] / again["seconds"]
    _print(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1), encoding="utf-8")


def _device_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else f"{os.cpu_count()} CPU cores"


def _print(report: dict[str, Any]) -> None:
    ours, plain, trials = report["ours"], report["plain"], report["trials"]
    print(f"{trials} trials on {report['device']}")
    print(f"plain Ray Tune   {plain['all_seconds']:8.1f} s  ({plain['run']} of {trials} run: {plain['seconds']:.1f} s)")
    print(f"this project     {ours['seconds']:8.1f} s  (mean pack {ours['mean_pack_size']:.1f}, {ours['statuses']})")
    print(f"  once more      {report['again']['seconds']:8.1f} s  (model hashed, quantized weights in the cache)")
    print(f"times faster     {report['times_faster']:8.2f}, once more {report['times_faster_again']:.2f}")
    for host, seconds in ours["host_seconds"].items():
        shares = ", ".join(f"{name} {value:.1f} s ({value / seconds['all']:.0%})" for name, value in seconds.items())
        print(f"host {host}: {shares}")


if __name__ == "__main__":
    main()
