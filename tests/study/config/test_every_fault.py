"""All faults of a study file at once, and whatever values it has."""

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
from study.errors import WRONG_INPUT
from study.strict_yaml import strict_text
from tests.support.study_files import (
    changed,
    faults_of,
    write_study,
)

INF, NAN = float("inf"), float("nan")
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
    faults = faults_of(file, "oops", "training.max_steps=0")
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


def test_the_command_ends_with_two_and_without_a_traceback(tmp_path: Path) -> None:
    file = write_study(tmp_path, {"space.rnk": 8, "seeds": [True]})
    command = [sys.executable, "-m", "study", "plan", str(file)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (WRONG_INPUT, "")
    assert done.stderr.splitlines() == [
        f"{file}: space.rnk = 8: is no parameter of a trial. Did you mean `rank`?",
        f"{file}: seeds.0 = true: must be a whole number from 0 to 2,147,483,647. Write for example `seeds: [0]`.",
    ]


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
