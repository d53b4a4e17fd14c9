"""A study over a checkpoint in NF4, as the hub has them: planned, run, reported and exported, or refused at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.made_up_studies import save_tiny_model, write_study_file
from tests.support.places import ROOT
from tests.support.trainables.four_bit_folders import save_four_bit

RUN_SECONDS = 420  # a bound, many times what a run takes
SKIPPED = ["lm_head", "model.layers.0.self_attn.k_proj", "model.layers.1.mlp"]
SPACE = {
    "precision": "nf4", "rank": {"choice": [2, 4]}, "lora_alpha": 8, "lora_dropout": 0.0,
    "target_modules": {"choice": ["q_v", "all_linear"]}, "learning_rate": 1e-2,
}  # fmt: skip
TRAINING = {
    "micro_batch_size": 2, "gradient_accumulation_steps": 1, "evaluations": 1, "max_steps": 4, "epochs": 100,
}  # fmt: skip


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("plain") / "model")


@pytest.fixture(scope="module")
def checkpoint(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_four_bit(plain, tmp_path_factory.mktemp("nf4") / "model", skipped=SKIPPED)


def study(*arguments: Any) -> tuple[int, str]:
    command = [sys.executable, "-m", "study", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "RAY_ADDRESS": "local"}, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, timeout=RUN_SECONDS, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


@pytest.mark.usefixtures("own_cache")
def test_from_plan_to_report(checkpoint: Path, tmp_path: Path) -> None:
    """Peaks within 15 % of those predicted, as for other tiny models."""
    file, out = write_study_file(tmp_path, checkpoint, space=SPACE, training=TRAINING), tmp_path / "out"
    status, output = study("plan", file)
    assert status == 0, output
    assert "quantized already: NF4 with double quantization, 2 modules left in 16 bits" in output
    status, output = study("run", file, "--out", out)
    assert status == 0, output
    records = [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(records) == 4
    for record in records:
        assert record["status"] == "complete"
        measured = record["measurements"]
        assert measured["perplexity"] < measured["base_perplexity"]
        predicted = record["predictions"]["peak_memory_bytes"]
        assert predicted == pytest.approx(measured["peak_memory_bytes"], rel=0.15)
    assert (out / "report.html").stat().st_size > 0
    trial = json.loads((out / "pareto.json").read_text(encoding="utf-8"))["front"][0]["trial_id"]
    status, output = study("export", out, trial, "--to", tmp_path / "adapter")
    assert status == 0, output
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()
    status, output = study("export", out, trial, "--merge", "--to", tmp_path / "merged")
    assert status != 0
    assert "must be weights in 16 bits, to merge an adapter into them" in output


@pytest.mark.parametrize(
    ("changes", "base_model", "message"),
    [
        ({"precision": {"choice": ["nf4", "fp32"]}}, {}, "space.precision = \"fp32\": precision must be nf4, as"),
        ({}, {"double_quantization": False}, "base_model.double_quantization = false: must not be off, as"),
    ],
)  # fmt: skip
def test_what_the_checkpoint_is_not_is_refused_by_plan_and_run(
    changes: dict[str, Any], base_model: dict[str, Any], message: str, checkpoint: Path, tmp_path: Path
) -> None:
    file = write_study_file(
        tmp_path, base_model={"path": str(checkpoint), **base_model}, space={**SPACE, **changes}, training=TRAINING
    )
    for command in (["plan", file], ["run", file, "--out", tmp_path / "out"]):
        status, output = study(*command)
        assert status != 0
        assert message in output
