"""Wrong values of what each trial is: each gives one fault with key, value, rule and remedy, and exit code 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.study_files import (
    ABSENT,
    STUDY,
    holds_one_fault,
)

INF, NAN = float("inf"), float("nan")
OWN = {"name": "mine", "train_file": "a.jsonl"}
ACCURACY = {"metric": "accuracy", "direction": "maximize", "reference": 0}
SPEED = {"metric": "train_tokens_per_second", "direction": "maximize", "reference": 0}

# Each: what is changed in a good study, the key blamed, words of the rule, words of the remedy.
WRONG: list[tuple[dict[str, Any], str, str, str]] = [
    # name
    ({"name": ABSENT}, "name", "must be given", "`name: my-study`"),
    ({"name": None}, "name", "plain file name", "`name: my-study`"),
    ({"name": 7}, "name", "plain file name", 'Put it into quotes: "7"'),
    ({"name": True}, "name", "plain file name", 'quotes: "true"'),
    ({"name": ""}, "name", "plain file name", "my-study"),
    ({"name": "../up"}, "name", "plain file name", "my-study"),
    ({"name": "a/b"}, "name", "plain file name", "my-study"),
    ({"name": "a\\b"}, "name", "plain file name", "my-study"),
    ({"name": "/etc"}, "name", "plain file name", "my-study"),
    ({"name": ".hidden"}, "name", "not starting with `.`", "my-study"),
    ({"name": "-rf"}, "name", "not starting with `.` or `-`", "my-study"),
    ({"name": "a..b"}, "name", "without `..`", "my-study"),
    ({"name": "x" * 101}, "name", "up to 100", "my-study"),
    ({"name": "a b"}, "name", "plain file name", "my-study"),
    ({"name": "ä"}, "name", "letters A to Z", "my-study"),
    ({"name": "a\n"}, "name", "plain file name", "my-study"),
    # base model
    ({"base_model": ABSENT}, "base_model", "must be given", "{path: meta-llama"),
    ({"base_model": "a/b"}, "base_model", "keys and values", "{path: meta-llama"),
    ({"base_model": {}}, "base_model.path", "must be given", "`path: meta-llama"),
    ({"base_model.path": ""}, "base_model.path", "text of 1 to 1,000", "`path: meta-llama"),
    ({"base_model.path": ["a"]}, "base_model.path", "must be text", "`path: meta-llama"),
    ({"base_model.revision": 1.0}, "base_model.revision", "must be text", 'quotes: "1.0"'),
    ({"base_model.double_quantization": "yes"}, "base_model.double_quantization", "true or false", "Write `true`."),
    ({"base_model.double_quantization": 0}, "base_model.double_quantization", "true or false", "Write `false`."),
    ({"base_model.paht": "x"}, "base_model.paht", "no key of base_model", "Did you mean `path`?"),
    # data
    ({"dataset": None}, "dataset", "keys and values", "{name: pubmedqa"),
    ({"dataset.name": ABSENT}, "dataset.name", "must be given", "`name: pubmedqa`"),
    ({"dataset.name": "pubmed"}, "dataset.name", "one of pubmedqa, stackoverflow", "mean `pubmedqa`? Or give your own"),
    ({"dataset.name": "mine"}, "dataset.name", "without a train_file", "your own rows as `train_file`"),
    ({"dataset.max_tokens": 1}, "dataset.max_tokens", "from 2 to 1,048,576", "`max_tokens: 512`"),
    ({"dataset.max_tokens": "512"}, "dataset.max_tokens", "whole number", "`max_tokens: 512`"),
    ({"dataset.train_examples": 0}, "dataset.train_examples", "from 1 to", "`train_examples: null`"),
    ({"dataset.eval_examples": 0}, "dataset.eval_examples", "from 1 to", "`eval_examples: null`"),
    ({"dataset.test_examples": -1}, "dataset.test_examples", "from 0 to", "`test_examples: null`"),
    ({"dataset.train_examples": 64.0}, "dataset.train_examples", "whole number", "`train_examples: null`"),
    ({"dataset.eval_file": "b.jsonl"}, "dataset.eval_file", "needs a train_file", "`train_file`"),
    ({"dataset.test_file": "b.jsonl"}, "dataset.test_file", "needs a train_file", "`train_file`"),
    ({"dataset.train_file": "a.jsonl"}, "dataset.source", "must not stand beside a train_file", "Leave one"),
    ({"dataset": {**OWN, "test_examples": 5}}, "dataset.test_examples", "needs a test_file", "`test_file`"),
    ({"dataset": {**OWN, "train_file": 3}}, "dataset.train_file", "must be text", 'quotes: "3"'),
    ({"dataset.max_token": 3}, "dataset.max_token", "no key of dataset", "Did you mean `max_tokens`?"),
    # training
    ({"training": 3}, "training", "keys and values", "below `training`"),
    ({"training.epochs": 0}, "training.epochs", "above 0, at most 1,000", "`epochs: 1.0`"),
    ({"training.epochs": INF}, "training.epochs", "number above 0", "`epochs: 1.0`"),
    ({"training.epochs": NAN}, "training.epochs", "number above 0", "`epochs: 1.0`"),
    ({"training.epochs": "1"}, "training.epochs", "number above 0", "`epochs: 1.0`"),
    ({"training.epochs": True}, "training.epochs", "number above 0", "`epochs: 1.0`"),
    ({"training.epochs": 10**90}, "training.epochs", "at most 1,000", "`epochs: 1.0`"),
    ({"training.epochs": None}, "training.epochs", "number above 0", "`epochs: 1.0`"),
    ({"training.max_steps": 0}, "training.max_steps", "from 1 to 10,000,000, or null", "`max_steps: null`"),
    ({"training.micro_batch_size": 0}, "training.micro_batch_size", "from 1 to 4,096", "`micro_batch_size: 1`"),
    ({"training.gradient_accumulation_steps": 1.5}, "training.gradient_accumulation_steps", "whole number", ": 16`"),
    ({"training.schedule": "cosin"}, "training.schedule", "one of cosine, linear, constant", "Did you mean `cosine`?"),
    ({"training.schedule": "const"}, "training.schedule", "one of cosine", "Did you mean `constant`?"),
    ({"training.schedule": None}, "training.schedule", "one of cosine", "`schedule: cosine`"),
    ({"training.warmup_ratio": 1}, "training.warmup_ratio", "from 0, under 1", "`warmup_ratio: 0.03`"),
    ({"training.weight_decay": -0.1}, "training.weight_decay", "from 0 to 1", "`weight_decay: 0.0`"),
    ({"training.max_grad_norm": -1}, "training.max_grad_norm", "from 0 to 1,000,000", "`max_grad_norm: 1.0`"),
    ({"training.gradient_checkpointing": "on"}, "training.gradient_checkpointing", "true or false", "Write `true`."),
    (
        {"training.gradient_checkpointing": 2},
        "training.gradient_checkpointing",
        "true or false",
        "checkpointing: true`",
    ),
    ({"training.evaluations": 0}, "training.evaluations", "from 1 to 1,000", "`evaluations: 4`"),
    ({"training.learning_rate": 1}, "training.learning_rate", "no key of training", "Known are epochs"),
    # objectives
    ({"objectives": ABSENT}, "objectives", "must be given", "metric: perplexity"),
    ({"objectives": {"metric": "perplexity"}}, "objectives", "list of 2 to 4 objectives", "metric: perplexity"),
    ({"objectives": STUDY["objectives"][:1]}, "objectives", "list of 2 to 4 objectives", "metric: perplexity"),
    ({"objectives": [SPEED] * 5}, "objectives", "list of 2 to 4 objectives", "metric: perplexity"),
    ({"objectives.0": "perplexity"}, "objectives.0", "keys and values", "below `objectives.0`"),
    ({"objectives.0.metric": ABSENT}, "objectives.0.metric", "must be given", "`metric: perplexity`"),
    ({"objectives.0.metric": "perplexty"}, "objectives.0.metric", "one of perplexity", "Did you mean `perplexity`?"),
    ({"objectives.0.metric": 3}, "objectives.0.metric", "one of perplexity", "`metric: perplexity`"),
    ({"objectives.0.direction": ABSENT}, "objectives.0.direction", "must be given", "`direction: minimize`"),
    ({"objectives.0.direction": "min"}, "objectives.0.direction", "one of minimize", "Did you mean `minimize`?"),
    ({"objectives.0.reference": ABSENT}, "objectives.0.reference", "must be given", "`reference: 20`"),
    ({"objectives.0.reference": NAN}, "objectives.0.reference", "number from 0", "`reference: 20`"),
    ({"objectives.0.reference": -1}, "objectives.0.reference", "number from 0", "`reference: 20`"),
    ({"objectives.0.reference": "12"}, "objectives.0.reference", "number from 0", "`reference: 20`"),
    ({"objectives.1.reference": 15633680957}, "objectives.1.reference", "with its unit", "Write `14.56 GiB` for bytes"),
    ({"objectives.1.reference": 14.56}, "objectives.1.reference", "with its unit", "`reference: 14.56 GiB`"),
    ({"objectives.1.reference": "14.56"}, "objectives.1.reference", "with its unit", "`reference: 14.56 GiB`"),
    ({"objectives.1.reference": "14.56 GX"}, "objectives.1.reference", "with its unit", "14.56 GiB"),
    ({"objectives.1.reference": "0 B"}, "objectives.1.reference", "from 1 B", "14.56 GiB"),
    ({"objectives.1": {**STUDY["objectives"][0]}}, "objectives.1.metric", "must differ", "Leave it out"),
    ({"objectives.0.goal": 3}, "objectives.0.goal", "no key of objectives", "Known are metric"),
    (
        {"objectives.0": {"metric": "accuracy", "direction": "maximize", "reference": 1.5}},
        "objectives.0.reference",
        "from 0 to 1",
        "`reference: 0.3`",
    ),
    (
        {"objectives.0": ACCURACY, "dataset": OWN},
        "objectives.0.metric",
        "measured on the data",
        "`dataset.name: pubmedqa`",
    ),
    (
        {"objectives.0": ACCURACY, "dataset": {**OWN, "name": "pubmedqa"}},
        "objectives.0.metric",
        "measured on the data",
        "`dataset.name: pubmedqa`",
    ),
    (
        {"objectives.0": {"metric": "energy_joules", "direction": "minimize", "reference": 1}, "hardware.gpu": "cpu"},
        "objectives.0.metric",
        "only a GPU has it",
        "another metric",
    ),
    # hardware
    ({"hardware": "t4"}, "hardware", "keys and values", "below `hardware`"),
    ({"hardware.gpu": "t5"}, "hardware.gpu", "one of auto, cpu, t4", "`gpu: auto`"),
    ({"hardware.gpu": "h1000"}, "hardware.gpu", "one of auto, cpu, t4", "Did you mean `h100`?"),
    ({"hardware.gpu": None}, "hardware.gpu", "one of auto, cpu, t4", "`gpu: auto`"),
    ({"hardware.gpus": 0}, "hardware.gpus", "from 1 to 10,000, or null", "`gpus: null`"),
    ({"hardware.memory_limit": 8}, "hardware.memory_limit", "with its unit", "Write `8 B` for bytes"),
    ({"hardware.memory_limit": 8589934592}, "hardware.memory_limit", "with its unit", "Write `8 GiB` for bytes"),
    ({"hardware.memory_limit": "8"}, "hardware.memory_limit", "with its unit", "`memory_limit: 14.56 GiB`"),
    ({"hardware.memory_limit": "-8 GiB"}, "hardware.memory_limit", "with its unit", "14.56 GiB"),
    ({"hardware.max_adapters_per_gpu": 0}, "hardware.max_adapters_per_gpu", "from 1 to 1,024", ": null`"),
    ({"hardware.memory": 3}, "hardware.memory", "no key of hardware", "Did you mean `memory_limit`?"),
    ({"hardware.base_in_host_memory": True}, "hardware.base_in_host_memory", "auto, never, always", ": auto`"),
    (
        {"hardware.base_in_host_memory": "always", "training.gradient_checkpointing": False},
        "hardware.base_in_host_memory",
        "where training.gradient_checkpointing is false",
        "Set `training.gradient_checkpointing: true`, or `hardware.base_in_host_memory: auto`",
    ),
    ({"training.optimizer": "adam"}, "training.optimizer", "one of adamw, adamw_8bit", "Did you mean `adamw`?"),
    # the rest
    ({"adapters": "all"}, "adapters", "one of front, complete, none", "`adapters: front`"),
    ({"adapters": None}, "adapters", "one of front, complete, none", "Did you mean `none`?"),
    ({"adapters": "Front"}, "adapters", "one of front, complete, none", "Did you mean `front`?"),
    ({"generation.prompts": "Hello"}, "generation.prompts", "list of 0 to 50 texts", '`prompts: ["Hello"]`'),
    ({"generation.prompts": ["a", 3]}, "generation.prompts.1", "must be text", 'quotes: "3"'),
    ({"generation.prompts": ["a", " \n"]}, "generation.prompts.1", "must be text", "Hello"),
    ({"generation.prompts": ["a", "a"]}, "generation.prompts.1", "must differ", "Leave it out"),
    ({"generation.prompts": ["a" * 4001]}, "generation.prompts.0", "1 to 4,000", "Hello"),
    ({"generation.max_new_tokens": 0}, "generation.max_new_tokens", "from 1 to 8,192", "`max_new_tokens: 128`"),
    ({"storage": 7}, "storage", "a folder's path", 'quotes: "7"'),
    ({"storage": None}, "storage", "a folder's path", "`storage: runs`"),
    ({"storage": "http://bucket/runs"}, "storage", "s3://BUCKET/PREFIX", "`storage: runs`"),
    ({"storge": "runs"}, "storge", "no key of a study file", "Did you mean `storage`?"),
    ({"zzz": 1}, "zzz", "no key of a study file", "Known are name, base_model"),
]


@pytest.mark.parametrize(
    ("changes", "key", "rule", "remedy"), WRONG, ids=[f"{n}-{key}" for n, (_, key, *_) in enumerate(WRONG)]
)
def test_one_fault(
    changes: dict[str, Any], key: str, rule: str, remedy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    holds_one_fault(tmp_path, changes, key, rule, remedy, capsys)
