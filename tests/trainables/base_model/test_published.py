"""Configurations as they were published, in `configs/`: sizes and parameter counts exact, and each can be planned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from study.cli.main import main
from tests.support.study_files import write_study
from tests.support.trainables.real_tokenizers import trained
from trainables.base_model.families import FAMILIES
from trainables.base_model.files import inspect
from trainables.settings import BaseModelSettings

PUBLISHED: dict[str, dict[str, Any]] = {
    name: model
    for file in sorted((Path(__file__).parent / "configs").glob("*.json"))
    for name, model in json.loads(file.read_text()).items()
}
PLANNED = list(PUBLISHED)


def folder_of(name: str, path: Path, kind: str | None = None) -> Path:
    """Makes a model's folder without weights; `kind` is of a small tokenizer to put there."""
    if kind is not None:
        trained(kind).save_pretrained(path)
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(PUBLISHED[name]["config"]))
    return path


def test_every_family_is_there() -> None:
    assert {model["config"]["model_type"] for model in PUBLISHED.values()} == set(FAMILIES)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_counted_as_published(name: str, tmp_path: Path) -> None:
    info = inspect(BaseModelSettings(str(folder_of(name, tmp_path / "model"))), weights=False)
    assert info.shape.parameter_count == PUBLISHED[name]["parameters"]
    config = AutoConfig.from_pretrained(tmp_path / "model", trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    assert sum(parameter.numel() for parameter in model.parameters()) == info.shape.parameter_count
    found = {
        name.rsplit(".", 1)[-1]: (module.in_features, module.out_features)
        for name, module in model.model.layers[0].named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    assert dict(info.shape.linears) == found
    assert info.max_positions == config.max_position_embeddings


@pytest.mark.parametrize("name", PLANNED)
def test_a_study_over_it_is_planned(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kind = "byte_level" if PUBLISHED[name]["config"]["model_type"] in ("qwen2", "qwen3") else "metaspace"
    study = {
        "base_model.path": str(folder_of(name, tmp_path / "model", kind)),
        "hardware.gpu": "t4",
        "space.target_modules.choice": [["o_proj", "down_proj"]],
    }
    exit_code = main(["plan", str(write_study(tmp_path, study))])
    said = capsys.readouterr()
    assert exit_code == 0, said.err
    assert f": {PUBLISHED[name]['config']['model_type']}, " in said.out
    assert "nf4" in said.out
    assert "fp16" in said.out
