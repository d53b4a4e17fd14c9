"""A study whose space varies names, patterns and layers, from the plan to adapters that PEFT loads and bases merged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM, Phi3Config

from study.export.adapter import export_trial
from tests.support.made_up_studies import save_tiny_model
from tests.test_whole_study import records, run, study_file

IDS = torch.randint(97, (2, 15), generator=torch.Generator().manual_seed(0))
PHI3 = Phi3Config(
    hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    vocab_size=97, max_position_embeddings=128, original_max_position_embeddings=128, pad_token_id=0, bos_token_id=0,
    eos_token_id=1,
)  # fmt: skip
Q_V = {"llama": ("self_attn.q_proj", "self_attn.v_proj"), "phi3": ("self_attn.qkv_proj",)}
MIXED = ["self_attn.o_proj", r"re:layers\.[01]\.mlp\.(gate|down|gate_up)_proj"]
OF_MIXED = {
    "llama": ("self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"),
    "phi3": ("self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj"),
}


LAYERS = {"None": (0, 1), "last_half": (1,), "[0, 0]": (0,)}


def save_model(kind: str, folder: Path) -> Path:
    save_tiny_model(folder)
    if kind == "phi3":
        with torch.random.fork_rng():
            torch.manual_seed(0)
            AutoModelForCausalLM.from_config(PHI3).float().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["llama", "phi3"])
def test_names_patterns_and_layers_from_plan_to_export(kind: str, tmp_path: Path) -> None:
    """Merged weights' logits are PEFT's to 1 % of the largest, in bf16 (8 bits of mantissa)."""
    model = save_model(kind, tmp_path / "model")
    modules, layers = {"choice": ["q_v", MIXED]}, {"choice": ["all", "last_half", [0, 0]]}
    space = {"precision": "fp32", "rank": 4, "target_modules": modules, "layers": layers, "learning_rate": 1e-2}
    file, out = study_file(tmp_path, model, max_steps=6, space=space, adapters="complete"), tmp_path / "out"
    assert f"q_v[last_half]: {len(Q_V[kind])} linear layer" in run("plan", str(file))
    assert "q_v[last_half]" in run("run", str(file), "--out", str(out))
    found = records(out)
    assert [one["config"].get("layers") for one in found.values()] != [None] * 6
    for trial_id, record in found.items():
        config = record["config"]
        blocks = (OF_MIXED if "self_attn.o_proj" in config["target_modules"] else Q_V)[kind]
        numbers = LAYERS[str(config.get("layers"))]
        expected = {f"model.layers.{number}.{block}" for number in numbers for block in blocks}
        adapter, merged = tmp_path / f"{trial_id}-adapter", tmp_path / f"{trial_id}-merged"
        export_trial(out, trial_id, adapter)
        export_trial(out, trial_id, merged, merge=True)
        base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        tuned = PeftModel.from_pretrained(base, str(adapter)).eval()
        updated = {name for name, one in tuned.named_modules() if isinstance(one, LoraLayer)}
        assert {name.removeprefix("base_model.model.") for name in updated} == expected
        sizes = [(one.in_features, one.out_features) for name, one in tuned.named_modules() if name in updated]
        assert record["measurements"]["trainable_parameters"] == 4 * sum(map(sum, sizes))
        with torch.no_grad():
            theirs = tuned(input_ids=IDS).logits
            ours = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)(input_ids=IDS).logits
        assert (ours - theirs).abs().max() <= 0.01 * theirs.abs().max()
    report = (out / "report.html").read_text(encoding="utf-8")
    assert "q_v[last_half]" in report
    card = (tmp_path / "t000-adapter/README.md").read_text(encoding="utf-8")
    names = ", ".join(sorted(block.split(".")[1] for block in Q_V[kind]))
    assert f"| target_modules | {names} |" in card
    assert json.loads((out / "pareto.json").read_text(encoding="utf-8"))["front"]
