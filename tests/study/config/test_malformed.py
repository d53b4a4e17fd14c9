"""Study files that are wrong: every fault at once, each with file, key, value, rule and remedy, and exit code 2."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.checkout import CHECKOUT
from study.cli.main import main
from study.config.study_config import ConfigError, ConfigFault, load_study, to_yaml_text
from study.errors import WRONG_INPUT, Absent
from study.strict_yaml import strict_text
from tests.support.study_files import ABSENT, SPACE, STUDY, changed, write_study

INF, NAN = float("inf"), float("nan")
CONDITIONAL = {"choice": [0.1], "when": {"precision": "nf4"}}
TOO_MANY = {"search.algorithm": "grid", "space.lora_alpha": {"choice": list(range(1, 201))}}  # with seven of another
DROPOUTS = {"choice": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}
BOMB = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10) if n else 1}]" for n in range(9))
OWN = {"name": "mine", "train_file": "a.jsonl"}
ACCURACY = {"metric": "accuracy", "direction": "maximize", "reference": 0}
SEARCH = {"algorithm": "tpe", "trials": 4}
Q_V = {"target_modules": "q_v"}
POINT, OTHER = {"precision": "nf4", "rank": 8, **Q_V}, {"precision": "fp16", "rank": 8, **Q_V}
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
    # space
    ({"space": ABSENT}, "space", "must be given", "`space: search_spaces/paper_grid.yaml`"),
    ({"space": 3}, "space", "a path, or parameters", "search_spaces/paper_grid.yaml"),
    ({"space": ["rank"]}, "space", "a path, or parameters", "search_spaces/paper_grid.yaml"),
    ({"space": "nowhere.yaml"}, "space", "a file that is there; looked for", "Check its path"),
    ({"space": "x" * 3000}, "space", "a file that is there", "Check its path"),
    ({"space.rank": ABSENT}, "space.rank", "must be given", "`rank: {choice: [8, 64]}`"),
    ({"space.rank": 0}, "space.rank", "integer from 1 to 1024", "`rank: {choice: [8, 64]}`"),
    ({"space.rnk": 8}, "space.rnk", "no parameter of a trial", "Did you mean `rank`?"),
    ({"space.seed": 8}, "space.seed", "no parameter of a trial", "`seeds: [0, 1]`"),
    ({"space.rank": {"choose": [8]}}, "space.rank.choose", "no form of a parameter", "Did you mean `choice`?"),
    ({"space.rank": {"choice": [8, "x"]}}, "space.rank.choice.1", "integer from 1", "{choice: [8, 64]}"),
    ({"space.lora_dropout": CONDITIONAL}, "space.lora_dropout.otherwise", "where its condition", "otherwise: 0.05"),
    ({"space.lora_alpha": {"rank_times": 2000}}, "space.lora_alpha.rank_times", "at most 65536", "{rank_times: 2}"),
    ({"space.precision": "int8"}, "space.precision", "one of fp32, bf16, fp16, nf4", "{choice: [fp16, nf4]}"),
    # search
    ({"search": []}, "search", "keys and values", "below `search`"),
    ({"search": None}, "search", "keys and values", "leave it out"),
    ({"search.algorithm": "bayes"}, "search.algorithm", "one of grid, random, tpe, nsga2, gp", "`algorithm: grid`"),
    ({"search.algorithm": "TPE", "search.trials": 9}, "search.algorithm", "one of grid", "Did you mean `tpe`?"),
    ({"search.algorithm": "nsga-ii"}, "search.algorithm", "one of grid", "Did you mean `nsga2`?"),
    ({"search.algorithm": "tpe"}, "search.trials", "must be given", "`trials: 24`"),
    ({"search.algorithm": "random", "search.trials": None}, "search.trials", "must be given", "`trials: 24`"),
    ({"search.trials": 7}, "search.trials", "at least 8, the space's configurations", "`algorithm: random`"),
    ({"search.trials": 0}, "search.trials", "from 1 to 10,000", "`trials: 24`"),
    ({"search.trials": True}, "search.trials", "whole number", "`trials: 24`"),
    ({"search.seed": -1}, "search.seed", "from 0 to 2,147,483,647", "`seed: 0`"),
    ({**TOO_MANY, "space.lora_dropout": DROPOUTS}, "search.algorithm", "11,200", "`algorithm: tpe`"),
    (
        {**TOO_MANY, "seeds": list(range(7))},
        "search.algorithm",
        "the seeds are 11,200",
        "`algorithm: tpe`",
    ),
    ({"search.trails": 9}, "search.trails", "no key of search", "Did you mean `trials`?"),
    # seeds
    ({"seeds": 0}, "seeds", "list of 1 to 100 whole numbers", "`seeds: [0]`"),
    ({"seeds": []}, "seeds", "list of 1 to 100", "`seeds: [0]`"),
    ({"seeds": list(range(101))}, "seeds", "list of 1 to 100", "`seeds: [0]`"),
    ({"seeds": [0, 1, 0]}, "seeds.2", "must differ", "Leave it out"),
    ({"seeds": [0, True]}, "seeds.1", "whole number", "`seeds: [0]`"),
    ({"seeds": [0, 1.0]}, "seeds.1", "whole number", "`seeds: [0]`"),
    ({"seeds": [2**31]}, "seeds.0", "to 2,147,483,647", "`seeds: [0]`"),
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
    # what a search begins with
    ({"search": {**SEARCH, "try_first": 3}}, "search.try_first", "list of 0 to 10,000 configurations", "rank: 16"),
    (
        {"search": {**SEARCH, "try_first": [{**POINT, "rank": 9}]}},
        "search.try_first.0.rank",
        "8, 64",
        "widen the space",
    ),
    (
        {"search": {**SEARCH, "try_first": [{"rank": 8, **Q_V}]}},
        "search.try_first.0.precision",
        "must be given",
        ": fp16",
    ),
    ({"search": {**SEARCH, "try_first": [POINT, POINT]}}, "search.try_first.1", "must differ", "Leave it out"),
    ({"search": {**SEARCH, "try_first": [POINT], "trials": 0}}, "search.trials", "from 1 to", "trials: 24"),
    ({"search": {**SEARCH, "warm_start": "runs/a"}}, "search.warm_start", "list of 0 to 100 study", "[runs/earlier]"),
    ({"search": {**SEARCH, "warm_start": [""]}}, "search.warm_start.0", "text of 1 to", ""),
    ({"search": {"warm_start": ["a"]}}, "search.warm_start", "is for a search; a grid", "`algorithm: tpe`"),
    ({"search": {"try_first": [POINT]}}, "search.try_first", "is for a search; a grid", "`algorithm: tpe`"),
    ({"search": {**SEARCH, "trials": 1, "try_first": [POINT, OTHER]}}, "search.trials", "at least 2", "Raise it"),
    # confirm
    ({"confirm": {"seeds": []}}, "confirm.seeds", "list of 1 to 100 whole", "[101, 102, 103]"),
    ({"confirm": {"seeds": [5, 0]}}, "confirm.seeds.1", "must differ from the study's seeds", "not trained with"),
    ({"confirm": {"alone": True}}, "confirm.alone", "no key of confirm", "Known are seeds"),
    # early stopping
    ({"early_stopping.algorithm": "median"}, "early_stopping.algorithm", "one of none, pareto", "`algorithm: none`"),
    ({"early_stopping.algorithm": "pareto"}, "early_stopping.algorithm", "asha", "Did you mean `pareto_halving`?"),
    ({"early_stopping.rungs": 0.5}, "early_stopping.rungs", "list of 1 to 20 numbers", "`rungs: ["),
    ({"early_stopping.rungs": []}, "early_stopping.rungs", "list of 1 to 20 numbers", "`rungs: ["),
    ({"early_stopping.rungs": [0.1, 1]}, "early_stopping.rungs.1", "above 0, under 1", "`rungs: ["),
    ({"early_stopping.rungs": [0.1, 0.1]}, "early_stopping.rungs.1", "must differ", "Leave it out"),
    ({"early_stopping.rungs": [0.5, 0.25]}, "early_stopping.rungs", "must go upward", "`rungs: [0.25, 0.5]`"),
    ({"early_stopping.keep_fraction": 0}, "early_stopping.keep_fraction", "above 0, at most 1", "`keep_fraction: 0."),
    ({"early_stopping.grace_steps": -1}, "early_stopping.grace_steps", "from 0 to", "`grace_steps: 0`"),
    ({"early_stopping.strata": 0}, "early_stopping.strata", "from 1 to 100", "`strata: 3`"),
    ({"early_stopping.stratum_fraction": 1.5}, "early_stopping.stratum_fraction", "at most 1", "`stratum_fraction: 0."),
    ({"early_stopping.grace": 1}, "early_stopping.grace", "no key of early_stopping", "Did you mean"),
    ({"early_stopping.algorithm": None}, "early_stopping.algorithm", "one of none", "Did you mean `none`?"),
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


def _faults(file: Path, *overrides: str) -> tuple[ConfigFault, ...]:
    with pytest.raises(ConfigError) as caught:
        load_study(file, overrides)
    return caught.value.faults


def _value(study: Any, key: str) -> Any:
    """The value at a key as the fault shows it."""
    for part in key.split("."):
        try:
            study = study[int(part)] if isinstance(study, list) else study[part]
        except KeyError:
            return Absent.MISSING
    return study


@pytest.mark.parametrize(
    ("changes", "key", "rule", "remedy"), WRONG, ids=[f"{n}-{key}" for n, (_, key, *_) in enumerate(WRONG)]
)
def test_one_fault(
    changes: dict[str, Any], key: str, rule: str, remedy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_study(tmp_path, changes)
    (fault,) = _faults(file)
    assert (fault.file, fault.key) == (str(file), key)
    assert rule in fault.rule
    assert remedy in fault.remedy
    present = _value(changed(changes), key)
    assert repr(fault.value) == repr(present) or (fault.value, present) == (Absent.MISSING, None)
    assert main(["plan", str(file)]) == WRONG_INPUT
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"{fault}\n")
    assert len(err.splitlines()) == 1


# Files that hold no study

TEXTS: list[tuple[str | bytes, str, str, str]] = [
    ("", "", "must hold the keys of a study", "name: my-study"),
    ("# nothing", "", "must hold the keys of a study", "name: my-study"),
    ("- a\n- b", "", "must hold the keys of a study", "name: my-study"),
    ("just text", "", "must hold the keys of a study", "name: my-study"),
    ("name: a\nname: b", "line 2", "the key `name` must stand only once", "Keep one"),
    ("1: a", "line 1", "a key must be text", "quotes"),
    ("name: !!python/name:os.system x", "line 1", "tag", "without a tag"),
    ("name: !!str x", "line 1", "tag", "without a tag"),
    ("name: a\n---\nname: b", "line 2", "must be one document", "Remove `---`"),
    ("a: &a [*a]", "line 1", "stands for what holds it", "Write the value out"),
    (BOMB, "line 5", "at most 20,000 values", "fewer aliases"),
    ("a: " + "[" * 60 + "]" * 60, "line 1", "nested at most 50 deep", "flatter"),
    ("<<: {a: 1}", "line 1", "merge keys", "Write the keys out"),
    (b"#" * (2**20 + 1), "", "must be at most 1 MiB", "files of their own"),
    (b"name: \xff", "line 1", "must be UTF-8", "Save the file as UTF-8"),
    ("name: a".encode("utf-16"), "line 1", "must be UTF-8", "Save the file as UTF-8"),
    ("name: a\x00", "line 1", "no control characters", "UTF-8"),
    ("name: [a", "line 1", "must be YAML", "brackets"),
    ("name: a\n\tb: c", "line 2", "must be YAML", "indentation"),
    ("name: a: b", "line 1", "must be YAML", "colons"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "key", "rule", "remedy"), TEXTS, ids=[rule for _, _, rule, _ in TEXTS])
def test_what_is_no_study_at_all(
    text: str | bytes, key: str, rule: str, remedy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "study.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    (fault,) = _faults(file)
    assert (fault.file, fault.key) == (str(file), key)
    assert rule in fault.rule
    assert remedy in fault.remedy
    assert main(["plan", str(file)]) == WRONG_INPUT
    assert capsys.readouterr().err == f"{fault}\n"


@pytest.mark.parametrize("name", ["missing.yaml", ".", "x" * 4000])
def test_a_file_that_is_not_there(name: str, tmp_path: Path) -> None:
    (fault,) = _faults(tmp_path / name)
    assert fault.rule.startswith("must be a file that")
    assert fault.remedy == "Check its path."


# Space files


def test_a_space_files_faults_name_the_space_file(tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(strict_text({**SPACE, "rank": 0, "rnk": 3}), encoding="utf-8")
    faults = _faults(write_study(tmp_path, {"space": "space.yaml", "training.epochs": 0}))
    assert [(fault.file, fault.key) for fault in faults] == [
        (str(space), "space.rank"),
        (str(space), "space.rnk"),
        (str(tmp_path / "study.yaml"), "training.epochs"),
    ]


@pytest.mark.parametrize(
    ("text", "key", "rule"),
    [
        ("rank: !!int 8", "line 1", "tag"),
        ("rank: 8\nrank: 8", "line 2", "only once"),
        ("", "space", "must hold the parameters"),
        ("[8]", "space", "must hold the parameters"),
    ],
)
def test_a_space_file_that_is_no_space(text: str, key: str, rule: str, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(text, encoding="utf-8")
    (fault,) = _faults(write_study(tmp_path, {"space": "space.yaml"}))
    assert (fault.file, fault.key) == (str(tmp_path / "space.yaml"), key)
    assert rule in fault.rule


@pytest.mark.parametrize("space", [".", "search_spaces", ""])
def test_a_space_that_is_a_folder(space: str, tmp_path: Path) -> None:
    file = write_study(tmp_path, {"space": space})
    (fault,) = _faults(file)
    assert (fault.file, fault.key, fault.value) == (str(file), "space", space)
    assert fault.rule == f"must be a file that is there; looked for {tmp_path / space} and {CHECKOUT / space}"


# Overrides


@pytest.mark.parametrize(
    ("override", "key", "rule", "remedy"),
    [
        ("search.seed", "", "must be KEY.PATH=VALUE", "--set search.seed=1"),
        ("=1", "", "must be KEY.PATH=VALUE", "--set search.seed=1"),
        (" =1", "", "must be KEY.PATH=VALUE", "--set search.seed=1"),
        ("search.=1", "", "must be KEY.PATH=VALUE", "--set search.seed=1"),
        ("search..seed=1", "", "must be KEY.PATH=VALUE", "--set search.seed=1"),
        (".seed=1", "", "must be KEY.PATH=VALUE", "--set search.seed=1"),
        ("search.sed=1", "search.sed", "no key of search", "Did you mean `seed`?"),
        ("serch.seed=1", "serch", "no key of a study file", "Did you mean `search`?"),
        ("serch.deep.seed=1", "serch", "no key of a study file", "Did you mean `search`?"),
        ("search.seed=x", "search.seed", "whole number", "`seed: 0`"),
        ("search=3", "search", "keys and values", "below `search`"),
        ("training.epochs=", "training.epochs", "number above 0", "`epochs: 1.0`"),
        ("training.schedule=[", "training.schedule", "must be YAML", "brackets"),
        ("training.schedule=!!str x", "training.schedule", "tag", "without a tag"),
        ("name=a: b: c", "name", "must be YAML", "colons"),
        ("name=\x1b", "name", "control characters", "UTF-8"),
        ("name.first=1", "name.first", "must end at `name`", "--set name=VALUE"),
        ("objectives.2.reference=1", "objectives.2.reference", "a number under 2", "--set objectives.0"),
        ("objectives.x=1", "objectives.x", "a number under 2", "--set objectives.0"),
        ("objectives.-1=1", "objectives.-1", "a number under 2", "--set objectives.0"),
        (f"objectives.{'9' * 5000}=1", f"objectives.{'9' * 5000}", "a number under 2", "--set objectives.0"),
        ("objectives.0.metric=x", "objectives.0.metric", "one of perplexity", "`metric: perplexity`"),
        ("space=nowhere.yaml", "space", "looked for", "Check its path"),
        ("space.rank=0", "space.rank", "integer from 1", "{choice: [8, 64]}"),
        ("hardware.memory_limit=8", "hardware.memory_limit", "with its unit", "`8 B`"),
        ("name=../x", "name", "plain file name", "my-study"),
    ],
)
def test_a_wrong_override(
    override: str, key: str, rule: str, remedy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_study(tmp_path)
    (fault,) = _faults(file, override)
    assert (fault.file, fault.key) == ("--set", key)
    assert rule in fault.rule
    assert remedy in fault.remedy
    assert main(["plan", str(file), "--set", override]) == WRONG_INPUT
    assert capsys.readouterr().err == f"{fault}\n"


def test_an_override_does_not_reach_into_a_space_file(tmp_path: Path) -> None:
    (fault,) = _faults(write_study(tmp_path, {"space": "search_spaces/quick.yaml"}), "space.rank=8")
    assert (fault.file, fault.key, fault.value) == ("--set", "space.rank", 8)
    assert "must not reach into a space file; space is 'search_spaces/quick.yaml'" in fault.rule
    assert fault.remedy == "Write the space inline in the study file, or name another file: --set space=PATH."


def test_only_what_came_from_overrides_is_blamed_on_them(tmp_path: Path) -> None:
    file = write_study(tmp_path, {"training.epochs": 0, "search.seed": -1, "seeds": [-1]})
    faults = _faults(file, "training.evaluations=0", "search={seed: -2, algorithm: x}", "hardware.gpus=0")
    assert {(fault.file, fault.key) for fault in faults} == {
        (str(file), "seeds.0"),
        ("--set", "search.algorithm"),
        ("--set", "search.seed"),
        (str(file), "training.epochs"),
        ("--set", "training.evaluations"),
        ("--set", "hardware.gpus"),
    }


# Everything at once


def test_everything_is_said_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Faults in every section, in the space, between keys and in the overrides: no fault hides another."""
    (tmp_path / "space.yaml").write_text("rank: 0\nlora_dropout: 2", encoding="utf-8")
    study = {
        "nmae": "x",
        "base_model": {"revision": 1},
        "dataset": {"name": "pubmed", "max_tokens": 0},
        "space": "space.yaml",
        "search": {"algorithm": "tpe"},
        "seeds": [0, 0, -1],
        "training": {"epochs": 0, "schedule": "x"},
        "early_stopping": {"algorithm": "x"},
        "objectives": [{"metric": "x"}, {"metric": "perplexity", "direction": "up", "reference": "1"}, 3],
        "hardware": {"gpu": "x", "memory_limit": 1},
        "adapters": "x",
        "generation": {"prompts": ["", "a", "a"]},
        "storage": "",
    }
    file = tmp_path / "study.yaml"
    file.write_text(strict_text(study), encoding="utf-8")
    faults = _faults(file, "oops", "training.max_steps=0")
    assert [fault.key for fault in faults] == [
        "",
        "name",
        "base_model.path",
        "base_model.revision",
        "dataset.max_tokens",
        "dataset.name",
        "space.rank",
        "space.lora_dropout",
        "space.precision",
        "space.target_modules",
        "space.learning_rate",
        "seeds.1",
        "seeds.2",
        "search.trials",
        "training.epochs",
        "training.max_steps",
        "training.schedule",
        "early_stopping.algorithm",
        "objectives.0.metric",
        "objectives.0.direction",
        "objectives.1.direction",
        "objectives.1.reference",
        "objectives.2",
        "hardware.gpu",
        "hardware.memory_limit",
        "adapters",
        "generation.prompts.0",
        "generation.prompts.2",
        "storage",
        "nmae",
    ]
    assert main(["run", str(file), "--set", "oops", "--set", "training.max_steps=0"]) == WRONG_INPUT
    assert capsys.readouterr().err.splitlines() == [str(fault) for fault in faults]


def test_a_broken_file_and_a_broken_override_are_said_together(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("a: [", encoding="utf-8")
    assert [(fault.file, fault.key) for fault in _faults(tmp_path / "study.yaml", "x")] == [
        (str(tmp_path / "study.yaml"), "line 1"),
        ("--set", ""),
    ]


def test_the_command_ends_with_two_and_without_a_traceback(tmp_path: Path) -> None:
    file = write_study(tmp_path, {"space.rnk": 8, "seeds": [True]})
    command = [sys.executable, "-m", "study", "plan", str(file)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (WRONG_INPUT, "")
    assert done.stderr.splitlines() == [
        f"{file}: space.rnk = 8: is no parameter of a trial. Did you mean `rank`?",
        f"{file}: seeds.0 = true: must be a whole number from 0 to 2,147,483,647. Write for example `seeds: [0]`.",
    ]


# By chance

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 10**90, 0.5, -0.0, INF, NAN, "", "x", "grid", "auto", "1 GiB", "\u202e", [], {},
    [0], [[]], ["a", "a"], [{}], {"x": 1}, {"choice": [8]}, {"choice": {}}, {"name": None}, "a" * 2000,
)  # fmt: skip


FULL = changed(
    {
        "search": {"algorithm": "grid", "trials": 8, "seed": 0},
        "seeds": [0, 1],
        "training": {"epochs": 1, "max_steps": None, "schedule": "cosine", "warmup_ratio": 0.03, "evaluations": 4},
        "early_stopping": {"algorithm": "none"},
        "hardware": {"gpu": "t4", "gpus": 1, "memory_limit": "8 GiB", "max_adapters_per_gpu": 1},
        "adapters": "front",
        "generation": {"prompts": ["a"], "max_new_tokens": 1},
        "storage": "runs",
    }
)


def _keys(study: Any, path: str) -> list[str]:
    """The key and all below it."""
    pairs = study.items() if isinstance(study, dict) else enumerate(study) if isinstance(study, list) else ()
    return [path, *(key for name, value in pairs for key in _keys(value, f"{path}.{name}"))]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_any_values_give_a_study_or_faults_with_remedies(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    chance = random.Random(seed)
    sections = chance.sample([*FULL, "x"], chance.randint(1, 3))
    changes = {chance.choice(_keys(FULL.get(name), name)): chance.choice(VALUES) for name in sections}
    study = changed(changes, FULL)
    file = tmp_path_factory.mktemp("study") / "study.yaml"
    file.write_text(strict_text(study), encoding="utf-8")
    faults: tuple[ConfigFault, ...] = ()
    try:
        config = load_study(file)
    except ConfigError as error:
        faults = error.faults
    else:
        file.write_text(to_yaml_text(config), encoding="utf-8")
        assert load_study(file) == config
    for fault in faults:
        assert fault.key
        assert fault.rule
        assert fault.remedy
        assert str(fault).isprintable()
