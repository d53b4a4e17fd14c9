"""Made-up trials, studies and small models on disk, for the tests of what surrounds a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from search_spaces.trial_config import TrialConfig
from study.records.record import TrialRecord
from tests.support.small_models import tiny_llama

MIB = 2**20
SPACE = {
    "precision": {"choice": ["fp32", "nf4"]},
    "rank": {"choice": [2, 8]},
    "target_modules": "q_v",
    "learning_rate": 1e-3,
}


def make_config(precision: str = "fp32", rank: int = 8, **changes: Any) -> TrialConfig:
    """A configuration over query and value projections."""
    values = {
        "precision": precision, "rank": rank, "lora_alpha": 2.0 * rank, "lora_dropout": 0.0,
        "target_modules": ["q_proj", "v_proj"], "learning_rate": 1e-3, "seed": 0,
    }  # fmt: skip
    return TrialConfig.from_dict({**values, **changes})


def make_record(
    trial_id: str, config: TrialConfig | None = None, status: str = "complete", **measurements: Any
) -> TrialRecord:
    """A record; a complete one has perplexity and memory that get better and dearer with the rank."""
    config = config or make_config()
    found: dict[str, Any] = {"base_perplexity": 20.0}
    if status == "complete":
        memory = (100 if config.precision == "nf4" else 200) * MIB + config.rank * MIB
        found |= {"perplexity": 15.0 - 0.5 * config.rank, "peak_memory_bytes": memory, "train_tokens_per_second": 410.0}
    return TrialRecord(
        study="made-up",
        trial_id=trial_id,
        status=status,  # type: ignore[arg-type]
        config=config,
        reason=None if status == "complete" else f"made to be {status}",
        measurements={**found, **measurements},
        adapter=f"adapters/{trial_id}" if status == "complete" else None,
    )


def write_study_file(folder: Path, model: str | Path = "nobody/nothing", **changes: Any) -> Path:
    """A study file of four trials over files of its own; `changes` replace its keys."""
    rows = [{"prompt": f"Is {n} even?", "completion": " yes" if n % 2 == 0 else " no"} for n in range(40)]
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    values = {
        "name": "made-up",
        "base_model": {"path": str(model)},
        "dataset": {"name": "mine", "train_file": "rows.jsonl", "train_examples": 32, "max_tokens": 64},
        "space": SPACE,
        "training": {"micro_batch_size": 2, "gradient_accumulation_steps": 4, "evaluations": 2},
        "objectives": [
            {"metric": "perplexity", "direction": "minimize", "reference": 20.0},
            {"metric": "peak_memory_bytes", "direction": "minimize", "reference": "1 GiB"},
        ],
        "hardware": {"gpu": "cpu"},
        "storage": "storage",
    }
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump({**values, **changes}), encoding="utf-8")
    return file


def save_tiny_model(folder: Path) -> Path:
    """A Llama of random weights, and a tokenizer that knows the printable characters of ASCII, as a hub has them."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<s>": 0, "</s>": 1, **{chr(code): code - 30 for code in range(32, 127)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="?")
    fast.save_pretrained(folder)
    tiny_llama().save_pretrained(folder)
    return folder
