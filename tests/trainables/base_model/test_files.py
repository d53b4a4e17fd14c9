"""Reading a base model's files: what `inspect` finds, and what is refused with which words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.places import ROOT, SHARED
from tests.support.trainables.base_folders import config_folder, llama_shapes, write_weights
from trainables.base_model.checks.faults import BaseModelError
from trainables.base_model.files import inspect, weights_folder
from trainables.base_model.location import locate
from trainables.base_model.tokenizer import load_tokenizer
from trainables.settings import BaseModelSettings

MODELS = SHARED / "models"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_FRONTIER_CACHE", str(tmp_path / "cache"))


def _settings(path: Path | str, revision: str = "main") -> BaseModelSettings:
    return BaseModelSettings(str(path), revision)


def test_inspect_reads_shapes_and_no_weights(tmp_path: Path) -> None:
    info = inspect(_settings(config_folder(tmp_path / "model")))
    shape = info.shape
    layer = 16 * 16 * 2 + 2 * 16 * 8 + 3 * 16 * 24 + 2 * 16
    assert shape.parameter_count == 2 * 50 * 16 + 2 * layer + 16
    assert tuple(shape.linears) == ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert (shape.layers, shape.hidden_size, shape.vocab_size, info.max_positions) == (2, 16, 50, 64)
    assert (shape.attention_heads, shape.key_value_heads, shape.head_dim, shape.intermediate_size) == (4, 2, 4, 24)
    assert (shape.model_type, info.revision, shape.tie_word_embeddings) == ("llama", None, False)
    assert len(info.sha256) == 64


def test_the_hash_follows_the_weights(tmp_path: Path) -> None:
    folder = config_folder(tmp_path / "model")
    one = inspect(_settings(folder)).sha256
    write_weights(folder / "model.safetensors", llama_shapes(), b"1")
    two = inspect(_settings(folder)).sha256
    (folder / "model.safetensors").unlink()
    names = list(llama_shapes())
    files = {name: f"model-{1 + index % 2}.safetensors" for index, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    for file in sorted(set(files.values())):
        write_weights(folder / file, {name: llama_shapes()[name] for name in names if files[name] == file})
    three = inspect(_settings(folder)).sha256
    assert len({one, two, three}) == 3


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("gpt2", "decoder whose layers are linear; gpt2: its projections are Conv1D"),
        ("mixtral", "decoder whose layers are linear; mixtral: it is a mixture of experts"),
        ("mllama", "decoder whose layers are linear; mllama: "),
        ("bert", "decoder whose layers are linear; bert: its architecture must be BertLMHeadModel"),
        ("nonsense", "decoder whose layers are linear; nonsense: it is no causal language model"),
        (None, "decoder of transformers .* is of the type None"),
    ],
)
@pytest.mark.usefixtures("probed_here")
def test_what_is_no_linear_decoder_is_refused_with_its_type(kind: str | None, reason: str, tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=reason):
        inspect(_settings(config_folder(tmp_path / "model", model_type=kind)))


@pytest.mark.usefixtures("probed_here")
def test_an_activation_that_no_form_computes_has_its_layer_counted(tmp_path: Path) -> None:
    assert inspect(_settings(config_folder(tmp_path / "silu"))).shape.is_fused
    shape = inspect(_settings(config_folder(tmp_path / "relu", hidden_act="relu"))).shape
    assert not shape.is_fused
    assert shape.counted is not None
    assert shape.family.targets["q_v"] == ("q_proj", "v_proj")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["LlamaForSequenceClassification"]}, "must be a causal language model"),
        ({"quantization_config": {"quant_method": "awq"}}, r"must not be quantized already; .* \(awq\)"),
        ({"num_attention_heads": "many"}, 'num_attention_heads = "many": must be a whole number from 1'),
    ],
)
def test_other_models_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=message):
        inspect(_settings(config_folder(tmp_path / "model", **changes)))


def test_a_broken_configuration_is_refused(tmp_path: Path) -> None:
    folder = config_folder(tmp_path / "model")
    for text, rule in (("{", "must hold JSON"), ("[]", "a mapping in JSON"), ("\xff", "must be text in UTF-8")):
        (folder / "config.json").write_text(text, encoding="latin-1")
        with pytest.raises(BaseModelError, match=rule):
            inspect(_settings(folder))


def test_pickled_or_missing_weights_are_refused(tmp_path: Path) -> None:
    folder = config_folder(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    with pytest.raises(BaseModelError, match=r"model\.safetensors: missing: .* Download the model completely"):
        inspect(_settings(folder))
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(BaseModelError, match="pickled weights only, which can run code"):
        weights_folder(locate(_settings(folder)))


def test_a_missing_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="must have a tokenizer beside it"):
        load_tokenizer(_settings(config_folder(tmp_path / "model")))


def test_the_tokenizer_is_the_models_own() -> None:
    if not MODELS.is_dir():
        pytest.skip("needs the models beside the checkout (../shared/models)")
    tokenizer = load_tokenizer(_settings(MODELS / "stories260K"))
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)
    ids = tokenizer.encode(["Once upon a time"])[0].ids
    assert tokenizer.decode(ids) == "Once upon a time"


def test_the_driver_imports_no_torch() -> None:
    script = "import sys, trainables.base_model.files; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60)
