"""Merged weights are the base's plus the update, to 16 bits' rounding; exported adapters are what loaders read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.support.lora_cases import files_of, lora_config, random_rows, trained_adapter
from tests.support.small_models import shared, tiny_llama
from trainables.base_model.checks.faults import BaseModelError
from trainables.packed.merged_weights import low_rank_updates, write_merged
from trainables.packed.packed_model import PackedModel

IDS = torch.randint(97, (2, 15), generator=torch.Generator().manual_seed(0))


def save_base(kind: str, folder: Path) -> Path:
    if kind == "stories260K":
        return shared("models/stories260K")
    tiny_llama(torch.float16 if kind == "fp16" else torch.float32).save_pretrained(
        folder, max_shard_size="40KB" if kind == "shards" else "1GB"
    )
    return folder


def save_adapter(base: Path, folder: Path, **changes: object) -> Path:
    """An adapter that was trained for three steps over the base in fp32, as a study keeps it."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).requires_grad_(False).train()
    adapter = trained_adapter(PackedModel(model), lora_config(**changes), random_rows(13))
    folder.mkdir()
    for name, content in files_of(adapter, str(base)).items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "merged"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("kind", "dtype", "modules"),
    [("whole", "bfloat16", "all_linear"), ("shards", "bfloat16", "q_v"), ("fp16", "float16", "all_linear"),
     ("stories260K", "bfloat16", "all_linear")],
)  # fmt: skip
def test_merged_weights_answer_as_the_adapter_does(
    kind: str, dtype: str, modules: str, tmp_path: Path, target: Path
) -> None:
    """Weights equal PEFT's own merge rounded once, but for one unit in the last place where two sums differ in order.

    Logits stay within 2 % (bf16: 8 bits of mantissa) or 0.3 % (fp16: 11 bits) of the largest, computed in fp32.
    """
    base = save_base(kind, tmp_path / "base")
    adapter = save_adapter(base, tmp_path / "adapter", target_modules=modules)
    assert write_merged(base, adapter, target) == dtype
    merged, report = AutoModelForCausalLM.from_pretrained(target, dtype="auto", output_loading_info=True)
    assert str(merged.dtype) == f"torch.{dtype}"
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.no_grad():
        before = plain(input_ids=IDS).logits
        tuned = PeftModel.from_pretrained(plain, str(adapter)).eval()
        theirs = tuned(input_ids=IDS).logits
        ours = merged.float()(input_ids=IDS).logits
    expected = tuned.merge_and_unload().state_dict()
    unit = torch.finfo(getattr(torch, dtype)).eps
    for name, weight in merged.state_dict().items():
        torch.testing.assert_close(weight, expected[name].float(), rtol=unit, atol=1e-6, msg=name)
    tolerance = (0.02 if dtype == "bfloat16" else 0.003) * theirs.abs().max()
    assert (ours - theirs).abs().max() <= tolerance
    assert (theirs - before).abs().max() > 10 * tolerance  # the adapter does something, which the merge has kept


def test_another_models_adapter_is_refused(tmp_path: Path, target: Path) -> None:
    base = save_base("whole", tmp_path / "base")
    adapter = save_adapter(base, tmp_path / "adapter")
    tiny_llama(layers=1).save_pretrained(tmp_path / "other")
    with pytest.raises(BaseModelError, match=r"must be of the base model .* has no 'model\.layers\.1\."):
        write_merged(tmp_path / "other", adapter, target)


@pytest.mark.parametrize("shards", [False, True])
def test_a_base_saved_without_its_head_is_merged_all_the_same(shards: bool, tmp_path: Path, target: Path) -> None:
    """Bit-equal weights to the merge into the same base saved with its head, whose names begin with `model.`."""
    base = save_base("shards" if shards else "whole", tmp_path / "base")
    adapter = save_adapter(base, tmp_path / "adapter")
    write_merged(base, adapter, target)
    for file in base.glob("*.safetensors"):
        save_file({name.removeprefix("model."): tensor for name, tensor in load_file(file).items()}, file)
    (tmp_path / "other").mkdir()
    write_merged(base, adapter, tmp_path / "other")
    merged = [tensor for file in sorted(target.glob("*.safetensors")) for tensor in sorted(load_file(file).items())]
    for file in sorted((tmp_path / "other").glob("*.safetensors")):
        for name, tensor in load_file(file).items():
            assert not name.startswith("model.")
            expected = [weight for full, weight in merged if full.removeprefix("model.") == name]
            assert len(expected) == 1
            assert torch.equal(tensor, expected[0]), name


def test_a_base_of_other_shapes_is_refused(tmp_path: Path, target: Path) -> None:
    base = save_base("whole", tmp_path / "base")
    adapter = save_adapter(base, tmp_path / "adapter")
    weights = load_file(base / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    save_file({**weights, name: torch.zeros(48, 32)}, base / "model.safetensors")
    with pytest.raises(
        BaseModelError, match=r"'model\.layers\.1\.mlp\.up_proj\.weight' is \(48, 32\) there and \(64, 32\)"
    ):
        write_merged(base, adapter, target)


@pytest.mark.parametrize("damage", ["cut", "no B", "configuration", "rank 0", "no rank"])
def test_a_damaged_adapter_is_refused(damage: str, tmp_path: Path) -> None:
    adapter = save_adapter(save_base("whole", tmp_path / "base"), tmp_path / "adapter", target_modules="q_v")
    file, config = adapter / "adapter_model.safetensors", adapter / "adapter_config.json"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-8])
    elif damage == "no B":
        save_file({name: tensor for name, tensor in load_file(file).items() if "lora_B" not in name}, file)
    else:
        texts = {"configuration": "{", "rank 0": '{"r": 0, "lora_alpha": 2}', "no rank": '{"lora_alpha": 2}'}
        config.write_text(texts[damage], encoding="utf-8")
    with pytest.raises(BaseModelError, match="truncated: " if damage == "cut" else "must be as the study wrote it"):
        low_rank_updates(adapter)


def test_what_is_too_large_for_fp16_is_refused(tmp_path: Path, target: Path) -> None:
    base = save_base("fp16", tmp_path / "base")
    adapter = save_adapter(base, tmp_path / "adapter", target_modules="q_v")
    tensors = load_file(adapter / "adapter_model.safetensors")
    save_file({name: tensor * 1e5 for name, tensor in tensors.items()}, adapter / "adapter_model.safetensors")
    with pytest.raises(BaseModelError, match="a merged weight must be finite"):
        write_merged(base, adapter, target)


def test_tokenizer_and_licence_come_along(tmp_path: Path, target: Path) -> None:
    base = save_base("shards", tmp_path / "base")
    for name in ("tokenizer.json", "chat_template.jinja", "LICENSE.txt", "notes.md"):
        (base / name).write_text("{}", encoding="utf-8")
    write_merged(base, save_adapter(base, tmp_path / "adapter", target_modules="q_v"), target)
    names = {file.name for file in target.iterdir()}
    assert {"tokenizer.json", "chat_template.jinja", "LICENSE.txt", "generation_config.json"} <= names
    assert not names & {"notes.md", "adapter_config.json"}
    index = json.loads((target / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert {file.name for file in target.glob("*.safetensors")} == set(index["weight_map"].values())
    tensors = [tensor for file in target.glob("*.safetensors") for tensor in load_file(file).values()]
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors)


def test_vllm_takes_an_exported_adapter_as_a_lora_module(tmp_path: Path) -> None:
    """By vLLM's own rules for a folder given as a LoRA module: no bias, no DoRA, nothing saved beside A and B, names
    that end in lora_A.weight or lora_B.weight, and shapes of the rank."""
    adapter = save_adapter(save_base("whole", tmp_path / "base"), tmp_path / "adapter", rank=8)
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["peft_type"] == "LORA"
    assert config["bias"] == "none"
    assert not config.get("use_dora")
    assert not config.get("modules_to_save")
    assert config["r"] == 8
    for name, tensor in load_file(adapter / "adapter_model.safetensors").items():
        prefix, module, kind, last = name.rsplit(".", 3)
        assert prefix.startswith("base_model.model.model.layers.")
        assert module in config["target_modules"]
        assert (kind, last) in {("lora_A", "weight"), ("lora_B", "weight")}
        assert tensor.shape[0 if kind == "lora_A" else 1] == 8
    a, b, scale = low_rank_updates(adapter)["model.layers.0.self_attn.q_proj.weight"]
    assert (a.shape, b.shape, scale) == ((8, 32), (32, 8), 2.0)


def test_a_tied_head_is_not_merged(tmp_path: Path, target: Path) -> None:
    base, adapter = save_base("fp32", tmp_path / "base"), tmp_path / "adapter"
    save_adapter(base, adapter)
    tensors = load_file(adapter / "adapter_model.safetensors")
    head = {
        f"base_model.model.lm_head.lora_{name}.weight": torch.zeros(size)
        for name, size in (("A", (4, 32)), ("B", (97, 4)))
    }
    save_file({**tensors, **head}, adapter / "adapter_model.safetensors")
    write_merged(base, adapter, target)  # its head is its own
    values = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").write_text(json.dumps({**values, "tie_word_embeddings": True}), encoding="utf-8")
    with pytest.raises(BaseModelError, match=r"'lm_head.weight' is the input embedding too"):
        write_merged(base, adapter, target)
