"""Trains a grid the plain way: Ray Tune, HF Trainer, one process and one model copy a trial.

    python -m tests.benchmarks.support.plain_tune --model DIR --data DIR --configurations FILE --steps 30 ... --json OUT

Follows the libraries' own documentation: `BitsAndBytesConfig`, `prepare_model_for_kbit_training`, `get_peft_model`,
`Trainer` with gradient checkpointing, one `tune.Tuner` over the configurations. It shares no model code with LoRA
Frontier.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune


def train(config: dict[str, Any]) -> None:
    """One trial: load, attach, train, evaluate, report."""
    started = time.perf_counter()
    import torch
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, Trainer, TrainingArguments

    cuda = torch.cuda.is_available()
    if config["memory_limit_bytes"]:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(config["memory_limit_bytes"] / total)
    dtype = torch.float16 if cuda else torch.float32
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    tokenizer = AutoTokenizer.from_pretrained(config["model"])
    model = AutoModelForCausalLM.from_pretrained(
        config["model"],
        dtype=dtype,
        quantization_config=nf4 if config["precision"] == "nf4" else None,
        device_map={"": 0} if cuda else None,
    )
    if config["precision"] == "nf4":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=config["checkpointing"])
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=config["rank"],
        lora_alpha=2 * config["rank"],
        target_modules=config["target_modules"],
        lora_dropout=0.0,
    )
    model = get_peft_model(model, lora)
    loaded = time.perf_counter()
    arguments = TrainingArguments(
        output_dir="out",
        per_device_train_batch_size=config["micro_batch_size"],
        per_device_eval_batch_size=config["micro_batch_size"],
        max_steps=config["steps"],
        learning_rate=config["learning_rate"],
        lr_scheduler_type="cosine",
        fp16=cuda,
        use_cpu=not cuda,
        gradient_checkpointing=config["checkpointing"],
        logging_steps=10,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    rows = {name: _rows(config, name, tokenizer) for name in ("train", "eval")}
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=rows["train"],
        eval_dataset=rows["eval"],
        data_collator=lambda batch: _collate(batch, torch),
    )
    trainer.train()
    trained = time.perf_counter()
    loss = trainer.evaluate()["eval_loss"]
    peak = torch.cuda.max_memory_allocated() if cuda else None
    tune.report(
        {
            "eval_loss": loss,
            "load_seconds": loaded - started,
            "train_seconds": trained - loaded,
            "evaluate_seconds": time.perf_counter() - trained,
            "peak_memory_bytes": peak,
        }
    )


def _rows(config: dict[str, Any], name: str, tokenizer: Any) -> list[dict[str, list[int]]]:
    rows = []
    for line in (Path(config["data"]) / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        prompt = tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]
        completion = tokenizer(row["completion"], add_special_tokens=False)["input_ids"]
        room = max(0, config["max_tokens"] - len(completion))
        prompt = prompt[max(0, len(prompt) - room) :]
        rows.append({"input_ids": prompt + completion, "labels": [-100] * len(prompt) + completion})
    return rows


def _collate(batch: list[dict[str, list[int]]], torch: Any) -> dict[str, Any]:
    width = max(len(row["input_ids"]) for row in batch)

    def padded(name: str, filler: int) -> Any:
        return torch.tensor([row[name] + [filler] * (width - len(row[name])) for row in batch])

    mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in batch])
    return {"input_ids": padded("input_ids", 0), "labels": padded("labels", -100), "attention_mask": mask}


def main() -> None:
    """Runs the grid and writes each trial's seconds, and the whole's."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--settings", type=Path, required=True, help="JSON: what is the same for all trials")
    parser.add_argument("--configurations", type=Path, required=True, help="JSON: a list of configurations")
    parser.add_argument("--concurrent", type=int, default=1, help="trials at a time: as many as fit")
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    shared = json.loads(options.settings.read_text(encoding="utf-8"))
    configurations = json.loads(options.configurations.read_text(encoding="utf-8"))
    started = time.perf_counter()
    ray.init(log_to_driver=False, num_cpus=options.cpus, num_gpus=options.gpus or None)
    share = {"cpu": options.cpus / options.concurrent, "gpu": options.gpus / options.concurrent}
    space = {**shared, "configuration": tune.grid_search(configurations)}
    tuner = tune.Tuner(
        tune.with_resources(lambda config: train({**config, **config["configuration"]}), share),
        param_space=space,
        run_config=tune.RunConfig(storage_path=str(options.json.resolve().parent / "plain_tune_runs"), verbose=0),
    )
    grid = tuner.fit()
    seconds = time.perf_counter() - started
    trials = [
        {name: value for name, value in (result.metrics or {}).items() if name.endswith(("seconds", "bytes", "loss"))}
        for result in grid
    ]
    errors = [str(result.error).splitlines()[-1] for result in grid if result.error]
    report = {"seconds": seconds, "trials": trials, "errors": errors}
    options.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    print(json.dumps({"seconds": seconds, "trials": len(trials), "errors": errors}))


if __name__ == "__main__":
    main()
