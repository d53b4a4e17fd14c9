"""A probe is a process of its own, made once for a configuration; the process that asks needs no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.support.places import ROOT
from tests.support.trainables.real_tokenizers import trained
from trainables.base_model.checks.faults import BaseModelError
from trainables.base_model.files import inspect
from trainables.base_model.probe import probe as probing
from trainables.base_model.tokenizer import load_tokenizer
from trainables.settings import BaseModelSettings

OLMO = {
    "model_type": "olmo", "architectures": ["OlmoForCausalLM"], "vocab_size": 512, "hidden_size": 32,
    "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128,
    "pad_token_id": None, "clip_qkv": 8.0,
}  # fmt: skip
ASKS = """
import sys
from trainables.base_model.files import inspect
from trainables.settings import BaseModelSettings
info = inspect(BaseModelSettings(sys.argv[1]), weights=False)
heavy = sorted({name.split(".")[0] for name in sys.modules} & {"torch", "transformers", "peft", "accelerate"})
print(info.shape.parameter_count, info.max_positions, heavy)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny OLMo's folder, with weights and a tokenizer."""
    path = tmp_path_factory.mktemp("olmo")
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(**OLMO)).save_pretrained(path)
    trained("byte_level").save_pretrained(path)
    (path / "config.json").write_text(json.dumps(OLMO))
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache, in this process and on disk."""
    monkeypatch.setenv("LORA_FRONTIER_CACHE", str(tmp_path / "cache"))
    probing._answer.cache_clear()
    yield tmp_path / "cache"
    probing._answer.cache_clear()


def test_a_folder_is_inspected_without_torch_and_probed_once(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", ASKS, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, check=False)
    parameters = 2 * 512 * 32 + 2 * (4 * 32 * 32 + 3 * 32 * 48)
    assert done.stdout.split(" ", 1) == [str(parameters), "128 []\n"], done.stderr
    assert len(list(cache.glob("probes/*/facts.json"))) == 1

    def no_process(*_: Any, **__: Any) -> Any:
        raise AssertionError("the probe is made a second time")

    monkeypatch.setattr(subprocess, "run", no_process)
    info = inspect(BaseModelSettings(str(folder)))
    assert (info.shape.parameter_count, info.shape.model_type, len(info.sha256)) == (parameters, "olmo", 64)
    assert list(info.shape.linears) == ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    assert load_tokenizer(BaseModelSettings(str(folder))).eos_token == "</s>"


def test_what_a_probe_refuses_is_the_models_fault_and_kept(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_layer": 2}')
    for _ in range(2):
        with pytest.raises(BaseModelError) as caught:
            inspect(BaseModelSettings(str(tmp_path)), weights=False)
        (fault,) = caught.value.faults
        assert (fault.key, fault.value) == ("model_type", "gpt2")
        assert "gpt2: its projections are Conv1D, not linear layers" in fault.rule
        assert fault.remedy.startswith("Choose a model of a family")
        probing._answer.cache_clear()
    assert len(list(cache.glob("probes/*/facts.json"))) == 1


def test_a_probe_that_takes_too_long_or_fails_is_a_fault_and_not_kept(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "SECONDS", 0.01)
    with pytest.raises(probing.ProbeError, match=r"olmo: transformers has not built it within 0\.01 s"):
        probing.probe(OLMO)
    monkeypatch.setattr(probing, "SECONDS", 60)
    monkeypatch.setattr(probing, "PROBE", "trainables.base_model.no_such_module")
    with pytest.raises(probing.ProbeError, match=r"olmo: transformers failed at building it \(.*no_such_module"):
        probing.probe(OLMO)
    assert list(cache.glob("probes/*/facts.json")) == []


def test_a_key_that_changes_nothing_changes_no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def answer(text: str) -> dict[str, str]:
        told.append(text)
        return {"fault": "f", "remedy": "r"}

    monkeypatch.setattr(probing, "_answer", answer)
    for more in ({}, {"_name_or_path": "x", "auto_map": {}}, {"clip_qkv": None}):
        with pytest.raises(probing.ProbeError, match="f"):
            probing.probe({**OLMO, **more})
    assert told[0] == told[1] != told[2]


@pytest.mark.parametrize(
    ("values", "key", "words"),
    [
        ({**OLMO, "num_hidden_layers": 10**6}, "num_hidden_layers", "from 1 to 1,000"),
        ({"model_type": "gpt2", "n_layer": 10**6}, "n_layer", "must be at most 1,000"),
        ({**OLMO, "to_dict": 1}, "to_dict", "transformers has a method of that name"),
        ({**OLMO, "per_layer_config": {"0": {}}}, "per_layer_config", "must be left out"),
        ({"model_type": "llava", "vision_config": {}, "text_config": {}}, "model_type", "made of several (vision_conf"),
        ({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}}, "model_type", "language model alone"),
        ({"model_type": "../x"}, "model_type", "must be a decoder of transformers"),
        ({**OLMO, "quantization_config": {"quant_method": "awq"}}, "quantization_config", "quantized already"),
    ],
)
def test_what_its_text_tells_needs_no_probe(
    values: dict[str, Any], key: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "_answer", lambda text: pytest.fail("it was probed"))
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(BaseModelError) as caught:
        inspect(BaseModelSettings(str(tmp_path)), weights=False)
    assert [fault.key for fault in caught.value.faults] == [key]
    assert words in caught.value.faults[0].rule
