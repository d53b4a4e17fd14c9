"""Exporting a trial's adapter: what is written, what is refused, and what goes to a hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from study.cli import main
from study.errors import ConfigError
from study.export import adapter as adapter_module
from study.export.adapter import export_trial, push_folder
from study.export.model_card import base_name, model_card
from study.records.record import TrialRecord
from tests.support.made_up_studies import make_config, make_record, write_study_file
from tests.support.trainables.memory_cases import SHAPES

SHA256 = "ab" * 32


def named(record: TrialRecord, **values: Any) -> TrialRecord:
    return TrialRecord.from_json(json.dumps({**json.loads(record.to_json()), **values}))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study of three trials; only the first has an adapter still, the third failed."""
    directory = tmp_path / "made-up"
    directory.mkdir()
    write_study_file(directory, "some/model", adapters="front")
    base = {"path": "some/model", "revision": "c0ffee", "sha256": SHA256}
    samples = [{"prompt": "How | so?", "base": "<b>`No`</b>", "tuned": "Yes.\n\n# Yes"}]
    first = named(make_record("t000", make_config("nf4")), base_model=base, samples=samples)
    records = [first, named(make_record("t001"), base_model=base), make_record("t002", status="failed")]
    lines = "".join(f"{record.to_json()}\n" for record in records)
    (directory / "results.jsonl").write_text(lines, encoding="utf-8")
    adapter = directory / "adapters/t000"
    adapter.mkdir(parents=True)
    settings, weights = (adapter / name for name in adapter_module.ADAPTER_FILES)
    settings.write_text("{}", encoding="utf-8")
    save_file({"lora_A": np.zeros((2, 2), np.float32)}, weights)
    return directory


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "trainables.base_model.hub.base_licence", lambda files: "llama3" if files.kind == "hub" else None
    )


def test_an_adapter_comes_with_a_card_that_says_everything(study: Path, tmp_path: Path) -> None:
    folder = export_trial(study, "t000", tmp_path / "new/adapter")
    assert {file.name for file in folder.iterdir()} == {*adapter_module.ADAPTER_FILES, "README.md"}
    assert (folder / "adapter_config.json").read_text(encoding="utf-8") == "{}"
    assert not [file for file in folder.parent.iterdir() if file != folder]  # nothing is left over
    card = (folder / "README.md").read_text(encoding="utf-8")
    _, front, text = card.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "peft", "pipeline_tag": "text-generation", "base_model": "some/model", "license": "llama3",
        "tags": ["lora", "qlora", "lora-frontier"],
    }  # fmt: skip
    for line in (
        "# made-up t000",
        'base = AutoModelForCausalLM.from_pretrained("some/model", revision="c0ffee", dtype="auto")',
        "vllm serve some/model --enable-lora --max-lora-rank 8 --lora-modules tuned=THIS_FOLDER",
        "| rank | 8 |",
        "| target_modules | q_proj, v_proj |",
        "| double quantization | yes |",
        "| gradient_accumulation_steps | 4 |",
        "| train_file | rows.jsonl |",  # not where it lay
        "| Perplexity, evaluation split | 11 | 20 |",
        "**`How | so?`**",
        "Base model: `<b>'No'</b>`",
        "Tuned: `Yes. # Yes`",
        "The base model, some/model, is under: llama3.",
        f"| base model sha256 | {SHA256} |",
    ):
        assert f"\n{line}" in text, line
    assert str(tmp_path) not in card


def test_paths_of_the_machine_stay_out_of_a_card(study: Path) -> None:
    from analysis.load import load_study

    loaded = load_study(study)
    for path, name in (("/home/me/models/Llama", "Llama"), ("package:some_package/folder/m.gguf", "m.gguf")):
        record = named(loaded.records[0], base_model={"path": path, "revision": None, "sha256": SHA256})
        assert base_name(record) == name
        kind = "gguf" if name.endswith(".gguf") else "folder"
        card = model_card(loaded, record, None, None, kind)
        assert "/home/me" not in card
        assert "is not known to this card" in card
        assert "base_model:" not in card
        assert ('gguf_file="m.gguf"' in card) == (kind == "gguf")


@pytest.mark.parametrize(
    ("trial", "message"),
    [
        (
            "t001",
            'TRIAL = "t001": must have an adapter; this one ended as complete and the study keeps adapters: front',
        ),
        ("t002", "this one ended as failed"),
        ("t009", "must be a trial of the study that has ended. Trials with an adapter: t000."),
    ],
)
def test_a_trial_without_an_adapter_is_refused(trial: str, message: str, study: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        export_trial(study, trial, tmp_path / "out")
    assert message in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_refused_and_left_alone(study: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="must be a new or an empty folder"):
        export_trial(study, "t000", tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("place", ["file/below", "n" * 300, "p" * 300 + "/below", "link"])
def test_a_place_that_no_folder_can_have_is_refused(place: str, study: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "link").symlink_to("nothing")
    with pytest.raises(ConfigError, match=r"--to: must be a (new or an empty folder|folder that can be made)"):
        export_trial(study, "t000", tmp_path / place)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "link", "made-up"]


def test_a_card_says_what_waited_in_host_memory_while_it_was_measured(study: Path) -> None:
    from analysis.load import load_study

    loaded, source = load_study(study), "cuda allocator peak"
    for offload, words in (({}, "."), ({"layers": 13}, ", with 13 layers in host memory.")):
        record = named(loaded.records[0], device={"memory_source": source, "offload": offload})
        assert f"; memory: {source}{words}\n" in model_card(loaded, record, None, None, "hub")


def test_a_merge_writes_weights_and_a_card_of_its_own(study: Path, tmp_path: Path, monkeypatch: Any) -> None:
    calls: list[Any] = []

    def merge(base: Path, adapter: Path, target: Path) -> str:
        calls.append((base, adapter))
        (target / "model.safetensors").write_text("weights", encoding="utf-8")
        return "bfloat16"

    class Info:
        sha256 = SHA256
        shape = SHAPES["llama-3-8b"]

    asked: list[Any] = []
    monkeypatch.setattr("trainables.packed.merged_weights.write_merged", merge)
    monkeypatch.setattr("trainables.base_model.files.inspect", lambda settings: asked.append(settings) or Info())
    monkeypatch.setattr("trainables.base_model.files.weights_folder", lambda files: Path(files.path))
    folder = export_trial(study, "t000", tmp_path / "out", merge=True)
    assert calls == [(Path("some/model"), study / "adapters/t000")]
    assert asked[0].revision == "c0ffee"  # the trial's own, whatever the branch is now
    assert {file.name for file in folder.iterdir()} == {"model.safetensors", "README.md"}
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "library_name: transformers" in card
    assert "merged in (bfloat16)" in card
    assert "the measures below are of the adapter over NF4" in card
    assert "PeftModel" not in card
    Info.sha256 = "cd" * 32
    with pytest.raises(ConfigError, match="must be the weights that the trial was trained on"):
        export_trial(study, "t000", tmp_path / "other", merge=True)
    assert not (tmp_path / "other").exists()


# -- the hub -----------------------------------------------------------------------------------------------------------


def test_a_push_says_where_it_went(study: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []

    class Hub:
        def create_repo(self, repository: str, **options: Any) -> None:
            calls.append((repository, options))

        def upload_folder(self, repo_id: str, folder_path: Path, **options: Any) -> None:
            calls.append((repo_id, {"files": sorted(file.name for file in folder_path.iterdir())}))

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    arguments = ["export", str(study), "t000", "--to", str(tmp_path / "out"), "--push", "me/mine"]
    assert main.main(arguments) == 0
    files = ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    assert calls == [("me/mine", {"private": True, "exist_ok": True}), ("me/mine", {"files": files})]
    output = capsys.readouterr()
    assert output.out.splitlines() == [str(tmp_path / "out"), "https://huggingface.co/me/mine"]
    assert "hf_secret" not in output.out + output.err


def test_no_message_of_a_refused_push_holds_a_token(tmp_path: Path) -> None:
    def refuse(repository: str, folder: Path) -> str:
        raise RuntimeError("401 for Bearer hf_secretSecret\nmore")

    with pytest.raises(ConfigError) as refused:
        push_folder(tmp_path, "me/mine", refuse)
    assert "the hub refused (401 for Bearer hf_…)" in str(refused.value)
    assert "ecret" not in str(refused.value)


@pytest.mark.parametrize("repository", ["mine", "a/b/c", "me/", "https://huggingface.co/me/mine", "me/mi ne"])
def test_a_name_that_no_repository_has_is_refused_before_anything_is_written(
    repository: str, study: Path, tmp_path: Path, capsys: Any
) -> None:
    arguments = ["export", str(study), "t000", "--to", str(tmp_path / "out"), "--push", repository]
    assert main.main(arguments) == 2
    assert "must be a hub repository as OWNER/NAME" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
