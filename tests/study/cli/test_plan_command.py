"""`python -m study plan`: what fits which cards, from a model's configuration alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from study.cli.main import main
from study.config.study_config import load_study, to_yaml_text
from study.hardware.machine import Card, Cards
from study.plan.forecast import likely_configurations
from tests.support.made_up_studies import SPACE, save_tiny_model, write_study_file
from tests.support.small_models import shared

LLAMA_3_8B = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
    "max_position_embeddings": 8192,
}  # fmt: skip
GPU_SPACE = {**SPACE, "precision": {"choice": ["fp16", "nf4"]}}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_FRONTIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """Llama-3-8B's configuration and nothing else."""
    folder = tmp_path / "llama"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA_3_8B), encoding="utf-8")
    return folder


def plan(capsys: pytest.CaptureFixture[str], file: Path, *options: str) -> str:
    """What the command prints, with runs of spaces made one."""
    assert main(["plan", str(file), *options]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_the_configuration_is_enough(llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = {"name": "mine", "train_file": "rows.jsonl", "train_examples": 32, "max_tokens": 512}
    file = write_study_file(tmp_path, llama, space=GPU_SPACE, dataset=dataset, hardware={"gpu": "auto"})
    never = ("--set", "hardware.base_in_host_memory=never")
    text = plan(capsys, file, "--gpu", "t4", "--gpus", "4", *never)
    for words in (
        "4 x NVIDIA T4, 14.56 GiB, compute capability 7.5", "not calibrated",
        "on 2 cards", "2 at a time on 4 cards, 2 to a base model",
        "nf4: 2 trials, 2 at a time on 2 cards, 1 wave, about", "GPU-hours", "hardware.price_per_hour overrides it",
        "The model's weights are not there yet", "every row is taken to be as long as dataset.max_tokens",
    ):  # fmt: skip
        assert words in text
    one = plan(capsys, file, "--gpu", "t4", "--gpus", "1", *never)
    assert "fp16, rank 2, q_v does not fit: it needs" in one
    assert "precision: nf4; or 2 such cards in one node" in one
    streamed = plan(capsys, file, "--gpu", "t4", "--gpus", "1")
    assert "does not fit" not in streamed
    assert "of 32 layers" in streamed
    priced = plan(capsys, file, "--gpu", "h200", "--set", "hardware.price_per_hour=2.5")
    assert "1 x NVIDIA H200" in priced
    assert "2.500 USD an hour and card (as given)" in priced
    assert "does not fit" not in priced


def test_a_real_model_and_its_own_lengths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = shared("models/stories260K")
    dataset = {"name": "pubmedqa", "source": "sample", "max_tokens": 256, "train_examples": 8, "eval_examples": 4}
    file = write_study_file(tmp_path, model, space=GPU_SPACE, dataset={**dataset, "test_examples": 0})
    text = plan(capsys, file, "--gpu", "Tesla T4")
    assert "1 x NVIDIA T4" in text
    assert "Micro-batches of 2 rows of up to 256 tokens" in text
    assert "not there yet" not in text


@pytest.mark.parametrize(("gpu", "found"), [("auto", "cards"), ("auto", "none"), ("cpu", "cards")])
def test_without_a_name_it_is_for_this_machine(
    gpu: str, found: str, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    cards = (Card("Tesla T4", None, 15_637_086_208, "7.5"),) * 3 if found == "cards" else ()
    monkeypatch.setattr("study.hardware.targets.find_cards", lambda: Cards(cards))
    text = plan(capsys, write_study_file(tmp_path, llama, hardware={"gpu": gpu, "gpus": 2 if gpu == "auto" else None}))
    assert ("2 x NVIDIA T4" in text) == (gpu == "auto" and found == "cards")
    assert ("1 CPU host" in text) == (gpu == "cpu" or found == "none")


def test_a_search_is_planned_by_draws(llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = {**GPU_SPACE, "rank": {"log_int": [4, 64]}}
    search = {"algorithm": "tpe", "trials": 40}
    file = write_study_file(tmp_path, llama, space=space, search=search, hardware={"gpu": "a100-80"})
    text = plan(capsys, file)
    assert "drawn by chance" in text
    assert "fp16: 20 trials" in text
    configs = likely_configurations(load_study(file), {"fp16": 20, "nf4": 20})
    assert len(configs) == 40
    assert all(4 <= one.rank <= 64 for one in configs)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--gpu", "t5"], 'hardware.gpu = "t5": must be one of auto, cpu, t4'),
        (["--gpus", "none"], 'hardware.gpus = "none": must be a whole number'),
        (["--gpu", "t4"], 'space.precision = "bf16": precision bf16 needs a card of compute capability 8.0 or more'),
        (["--set", "hardware.price_per_hour=-1"], "hardware.price_per_hour = -1: must be a number from 0"),
    ],
)
def test_what_is_refused(options: list[str], words: str, llama: Path, tmp_path: Path, capsys: Any) -> None:
    file = write_study_file(tmp_path, llama, space={**SPACE, "precision": "bf16"})
    assert main(["plan", str(file), *options]) == 2
    assert words in capsys.readouterr().err


def test_bf16_is_planned_where_it_is_forced(llama: Path, tmp_path: Path, capsys: Any) -> None:
    file = write_study_file(tmp_path, llama, space={**SPACE, "precision": "bf16"})
    forced = ["--gpu", "t4", "--set", "hardware.force_bf16=true"]
    assert "refused" not in plan(capsys, file, *forced)
    config = load_study(file, ["hardware.gpu=t4", "hardware.force_bf16=true", "hardware.price_per_hour=0.35"])
    assert (config.trial.hardware.force_bf16, config.trial.hardware.price_per_hour) == (True, 0.35)
    again = tmp_path / "again.yaml"
    again.write_text(to_yaml_text(config), encoding="utf-8")
    assert load_study(again) == config


def test_weights_alone_may_be_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model"
    model.mkdir()
    save_tiny_model(model)
    (model / "model.safetensors").unlink()
    text = plan(capsys, write_study_file(tmp_path, model))
    assert "weights are not there yet" in text
    assert "of up to 17 tokens" in text
