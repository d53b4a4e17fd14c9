"""A model's folder is checked as a whole: good ones pass, and every fault that stands by itself is told at once."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.places import ROOT, SHARED
from tests.support.trainables.base_folders import config_folder, llama_shapes, write_weights
from trainables.base_model.checks.faults import BaseModelError, ModelFault
from trainables.base_model.checks.folder_model import folder_faults
from trainables.base_model.checks.folders import tokenizer_fault
from trainables.base_model.checks.weight_files import has_weights, weight_files

LINK = "../../../models/stories260K/model.safetensors"


@pytest.mark.parametrize("name", ["stories260K", "stories15M"])
def test_real_models_have_no_faults(name: str) -> None:
    if not SHARED.is_dir():
        pytest.skip("needs the models beside the checkout (../shared/models)")
    assert folder_faults(SHARED / "models" / name, weights=True) == []
    assert tokenizer_fault(SHARED / "models" / name) is None


def test_a_plan_can_do_without_weights_and_a_run_cannot(tmp_path: Path) -> None:
    folder = config_folder(tmp_path / "model")
    assert folder_faults(folder, weights=True) == []
    assert has_weights(folder)
    file = folder / "model.safetensors"
    file.unlink()
    for form in ("nothing", "a link to nothing", "a link that was saved as text"):
        if form == "a link to nothing":
            file.symlink_to(LINK)
        if form == "a link that was saved as text":
            file.unlink()
            file.write_text(LINK)
        assert not has_weights(folder), form
        assert folder_faults(folder, weights=False) == [], form
        (fault,) = folder_faults(folder, weights=True)
        assert "must be a whole safetensors file" in fault.rule
        assert fault.value in ("missing", form)


def test_one_file_comes_before_an_index_as_in_transformers(tmp_path: Path) -> None:
    folder = config_folder(tmp_path / "model")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "b.safetensors"}}))
    assert [path.name for path in weight_files(folder)] == ["model.safetensors"]
    (folder / "model.safetensors").unlink()
    with pytest.raises(BaseModelError, match=r"b\.safetensors: missing"):
        weight_files(folder)


def test_faults_of_several_files_are_told_together(tmp_path: Path) -> None:
    folder = config_folder(tmp_path / "model", hidden_size=-1, hidden_act="x")
    write_weights(folder / "model.safetensors", llama_shapes())
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"more")
    (folder / "generation_config.json").write_text("[]")
    (folder / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\n")
    found = [(Path(fault.file).name, fault.key) for fault in folder_faults(folder, weights=True)]
    assert found == [
        ("tokenizer.json", ""),
        ("config.json", "hidden_size"),
        ("config.json", "hidden_act"),
        ("model.safetensors", ""),
    ]


def test_an_error_survives_its_way_between_processes() -> None:
    error = BaseModelError.of([ModelFault("a/config.json", "hidden_size", -1, "must be positive", "Mend it.")])
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.faults) == (str(error), error.faults)
    assert str(copy) == "a/config.json: hidden_size = -1: must be positive. Mend it."


def test_checks_import_neither_torch_nor_transformers() -> None:
    script = (
        "import sys, pathlib\n"
        "from trainables.base_model.checks.folder_model import folder_faults\n"
        "from trainables.base_model.checks.gguf_model import read_gguf_config\n"
        "folder_faults(pathlib.Path(sys.argv[1]), True)\n"
        "assert not {'torch', 'transformers', 'safetensors', 'gguf', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, str(ROOT)], cwd=ROOT, check=True, timeout=60)
