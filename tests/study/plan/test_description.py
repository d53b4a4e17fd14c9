"""What a study would run, in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from study.config.study_config import ConfigError, load_study
from study.plan import description
from study.plan.description import describe, trial_counts
from study.plan.preflight import Preflight
from tests.support.made_up_studies import SPACE, write_study_file
from trainables.base_model.shape import ModelShape

FACTS = {"rows": 32, "dropped": 0, "truncated": 3, "tokens": 1234, "median_length": 17.5, "max_length": None}


@pytest.fixture(autouse=True)
def found(monkeypatch: pytest.MonkeyPatch) -> None:
    statistics = {"train": FACTS, "eval": {**FACTS, "rows": 4}, "test": {**FACTS, "rows": 0}}
    monkeypatch.setattr(description, "check", lambda config, weights: Preflight(134_515_008, "llama", statistics))


def described(folder: Path, **changes: Any) -> dict[str, str]:
    """The facts by their names, and the rest of the text under ''."""
    text = describe(load_study(write_study_file(folder, **changes)))
    facts, _, rest = text.partition("\n\n")
    return {**{line[:13].strip(): line[13:] for line in facts.splitlines()}, "": rest}


def test_a_grid(tmp_path: Path) -> None:
    facts = described(tmp_path, seeds=[0, 7], generation={"prompts": ["Hello"]})
    assert facts["study"] == f"made-up ({tmp_path / 'study.yaml'})"
    assert facts["base model"] == "nobody/nothing (hub id, revision main): llama, 134.52 M parameters"
    assert facts["trials"] == "8: 4 fp32, 4 nf4; algorithm grid; seed 0, 7"
    assert facts["each trial"] == "4 optimizer steps of 8 rows (2 at a time), 1 times over 32 rows"
    assert facts["data"] == f"mine from {tmp_path / 'rows.jsonl'}, rows cut at 64 tokens"
    assert facts["measured"].endswith("no test split; 1 prompt answered by base and tuned model")
    assert facts["objectives"].startswith(
        "perplexity minimized (reference 20), peak memory minimized (reference 1.00 GiB)"
    )
    assert facts["hardware"] == "gpu cpu; at most 4 adapters together"
    assert "  train     32         0           3    1,234           17.50         –" in facts[""]
    assert facts[""].endswith("  nf4 r8 q_v 1e-3, seed 0\n  nf4 r8 q_v 1e-3, seed 7")


def test_a_folder_of_a_hub_ids_name_comes_first_and_is_said(tmp_path: Path) -> None:
    (tmp_path / "nobody" / "nothing").mkdir(parents=True)
    (tmp_path / "nobody" / "nothing" / "config.json").write_text("{}")
    assert described(tmp_path)["base model"].startswith(f"{tmp_path}/nobody/nothing (local folder): llama")


def test_targets_that_are_not_plain_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = ModelShape(32, 48, 4, 4, 2, 8, 97, False, 0, model_type="phi3")
    found = description.check(None, weights=False)
    monkeypatch.setattr(description, "check", lambda config, weights: replace(found, shape=shape))
    monkeypatch.setattr(description, "plan_words", lambda *_: "")
    modules = {"choice": ["q_v", ["o_proj"], [r"re:layers\.[12]\.mlp\..*"]]}
    facts = described(tmp_path, space={**SPACE, "target_modules": modules})
    assert facts["targets"] == (
        r"q_v: 4 linear layers, qkv_proj; re:layers\.[12]\.mlp\..*: 4 linear layers, gate_up_proj, down_proj"
    )
    facts = described(tmp_path, space={**SPACE, "target_modules": ["o_proj"], "layers": [3, 3]})
    assert facts["targets"] == "o[3]: 1 linear layer, o_proj"
    assert "targets" not in described(tmp_path, space={**SPACE, "target_modules": ["o_proj"]})


def test_a_search_lists_no_configurations(tmp_path: Path) -> None:
    facts = described(tmp_path, search={"algorithm": "random", "trials": 3}, hardware={"gpu": "auto", "gpus": 2})
    assert facts["trials"].startswith("3: 2 fp32, 1 nf4; algorithm random; seed 0")
    assert facts["hardware"] == "gpu auto; cards: 2; as many adapters together as fit and pay"
    assert "The grid" not in facts[""]
    never = described(tmp_path, hardware={"gpu": "auto", "base_in_host_memory": "never"})["hardware"]
    assert never.startswith("gpu auto; cards: all there are; base model in host memory: never; as many")


def test_a_grid_says_what_it_takes_of_ranges(tmp_path: Path) -> None:
    space = {**SPACE, "rank": {"int": [4, 16]}, "learning_rate": {"log_float": [1e-4, 1e-2]}}
    facts = described(tmp_path, space=space)
    assert facts["ranges"] == "a grid takes the middle of each: learning_rate 0.001, rank 10"
    assert "ranges" not in described(tmp_path, space=space, search={"algorithm": "random", "trials": 3})


def test_dropout_is_named_where_it_varies(tmp_path: Path) -> None:
    facts = described(tmp_path, space={**SPACE, "lora_dropout": {"choice": [0.0, 0.1]}})
    assert "  nf4 r8 q_v 1e-3, dropout 0.1" in facts[""]


def test_a_warm_start_is_told_and_a_wrong_directory_refused(tmp_path: Path) -> None:
    (tmp_path / "earlier").mkdir()
    write_study_file(tmp_path / "earlier")
    search = {"algorithm": "random", "trials": 3, "warm_start": ["earlier"]}
    assert described(tmp_path, search=search)["warm start"].startswith(f"0 trials of {tmp_path / 'earlier'}; which of")
    with pytest.raises(ConfigError, match=r"search.warm_start.1.*must be a study's directory"):
        described(tmp_path, search={**search, "warm_start": ["earlier", "nowhere"]})


def test_a_large_grid_is_cut(tmp_path: Path) -> None:
    facts = described(tmp_path, seeds=list(range(10)))
    assert facts[""].endswith("and 16 more")


def test_counts_leave_nothing_behind(tmp_path: Path) -> None:
    config = load_study(write_study_file(tmp_path))
    before = set(tmp_path.rglob("*"))
    assert trial_counts(config) == {"fp32": 2, "nf4": 2}
    assert set(tmp_path.rglob("*")) == before
