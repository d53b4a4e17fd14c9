"""NF4: its numbers, the cache of quantized weights, and the eval-then-train trap."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import bitsandbytes
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from tests.support.places import ROOT, SHARED
from trainables.base_model import load, nf4
from trainables.base_model.load import load_base_model
from trainables.settings import BaseModelSettings
from trainables.user_cache import CacheEntry

MODELS = SHARED / "models"
IDS = torch.randint(3, 500, (2, 24), generator=torch.Generator().manual_seed(0))

pytestmark = pytest.mark.skipif(not MODELS.is_dir(), reason="needs the models beside the checkout (../shared/models)")

# The 16 values of NF4, Dettmers et al. 2023, appendix E.
NF4 = torch.tensor(
    [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ]
)  # fmt: skip


def _settings(name: str = "stories260K", double_quantization: bool = True) -> BaseModelSettings:
    return BaseModelSettings(str(MODELS / name), double_quantization=double_quantization)


def _linear4bit(model: nn.Module) -> list[bitsandbytes.nn.Linear4bit]:
    return [module for module in model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]


def _logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


def _count_quantizations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    quantize = nf4._quantize

    def counting(*args: object) -> object:
        calls.append(1)
        return quantize(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(nf4, "_quantize", counting)
    return calls


def test_nf4_rounds_every_weight_to_the_nearest_value() -> None:
    """Against a brute-force NF4: blocks of 64, each scaled by its largest magnitude. Tolerance 1e-6 of the block."""
    base = load_base_model(_settings(double_quantization=False), "nf4", "cpu", use_cache=False)
    source = load_file(MODELS / "stories260K" / "model.safetensors")
    for name, module in base.model.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit) and "layers.0" in name:
            weight = source[f"{name}.weight"].to(base.compute_dtype).float()
            ours = bitsandbytes.functional.dequantize_4bit(module.weight.data, module.weight.quant_state).float()
            blocks = weight.reshape(-1, 64)
            largest = blocks.abs().amax(1, keepdim=True)
            nearest = (blocks / largest)[..., None].sub(NF4).abs().argmin(-1)
            expected = (NF4[nearest] * largest).reshape(weight.shape)
            # bfloat16 results are rounded once more, to 2**-9 of themselves
            slack = 1e-6 + (2**-8 if base.compute_dtype == torch.bfloat16 else 0)
            assert ((ours - expected).abs() <= slack * expected.abs() + 1e-7).float().mean() > 0.999  # ties may differ


@pytest.mark.parametrize("double", [True, False])
def test_nf4_is_the_reference_quantization(double: bool) -> None:
    """Bit-equal to bitsandbytes' functional interface on the same weights."""
    base = load_base_model(_settings("stories15M", double), "nf4", "cpu", use_cache=False)
    source = load_file(MODELS / "stories15M" / "model.safetensors")
    modules = [(n, m) for n, m in base.model.named_modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    assert len(modules) == 6 * 7  # neither embeddings nor head
    for name, module in modules:
        state = module.weight.quant_state
        assert (state.nested, state.quant_type, module.compute_dtype) == (double, "nf4", base.compute_dtype)
        weight = source[f"{name}.weight"].to(base.compute_dtype)
        packed, reference = bitsandbytes.functional.quantize_4bit(
            weight, blocksize=64, compress_statistics=double, quant_type="nf4"
        )
        ours = bitsandbytes.functional.dequantize_4bit(module.weight.data, state)
        assert torch.equal(ours, bitsandbytes.functional.dequantize_4bit(packed, reference)), name


def test_a_reload_from_the_cache_is_bit_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _count_quantizations(monkeypatch)
    first = load_base_model(_settings("stories15M"), "nf4", "cpu")
    second = load_base_model(_settings("stories15M"), "nf4", "cpu")
    assert len(calls) == 1
    quantized = load_base_model(_settings("stories15M"), "nf4", "cpu", use_cache=False)
    assert len(calls) == 2
    assert torch.equal(_logits(first.model), _logits(quantized.model))
    assert torch.equal(_logits(second.model), _logits(quantized.model))
    assert [m.compute_dtype for m in _linear4bit(second.model)] == [first.compute_dtype] * 42
    assert not any(parameter.requires_grad for parameter in second.model.parameters())
    assert {parameter.dtype for parameter in second.model.parameters()} == {torch.uint8, first.compute_dtype}
    load_base_model(_settings("stories15M", double_quantization=False), "nf4", "cpu")
    assert len(calls) == 3


def test_who_quantizes_trains_on_what_was_kept_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the first study over a model measures other memory than all later ones: quantizing leaves holes."""
    reloaded: list[nn.Module] = []
    reload = nf4._reload

    def noting(*args: object) -> object:
        model = reload(*args)  # type: ignore[arg-type]
        return model if model is None else (reloaded.append(model), model)[1]

    monkeypatch.setattr(nf4, "_reload", noting)
    assert load_base_model(_settings(), "nf4", "cpu").model is reloaded[0]


def test_the_key_holds_all_that_matters(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_type = load_base_model(_settings(), "nf4", "cpu").compute_dtype
    load_base_model(_settings(double_quantization=False), "nf4", "cpu")
    monkeypatch.setattr(load, "cpu_multiplies_bf16", lambda: False)
    assert load_base_model(_settings(), "nf4", "cpu").compute_dtype == torch.float32
    monkeypatch.setattr("importlib.metadata.version", lambda name: "another")
    load_base_model(_settings(), "nf4", "cpu")
    entries = {path.name for path in (own_cache / "nf4").iterdir() if path.is_dir()}
    assert len(entries) == (4 if own_type == torch.bfloat16 else 3)


@pytest.mark.parametrize("damage", ["truncated", "scrambled header", "broken configuration"])
def test_a_corrupted_entry_is_made_anew(
    damage: str, own_cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = _logits(load_base_model(_settings(), "nf4", "cpu").model)
    (folder,) = (path for path in (own_cache / "nf4").iterdir() if path.is_dir())
    file = folder / ("config.json" if damage == "broken configuration" else "model.safetensors")
    content = file.read_bytes()
    file.write_bytes(content[:-9] if damage == "truncated" else b"\x7f" * 64 + content[64:])
    calls = _count_quantizations(monkeypatch)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(_logits(load_base_model(_settings(), "nf4", "cpu").model), expected)
    assert len(calls) == 1
    assert ("made anew" in caplog.text) == (damage != "truncated")  # the manifest tells that one
    assert CacheEntry("nf4", folder.name).intact()
    load_base_model(_settings(), "nf4", "cpu")
    assert len(calls) == 1


def test_a_cache_that_cannot_be_written_costs_only_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LORA_FRONTIER_CACHE", str(tmp_path / "file" / "below"))
    with caplog.at_level(logging.WARNING):
        assert load_base_model(_settings(), "nf4", "cpu").precision == "nf4"
    assert "could not be kept" in caplog.text


def test_two_processes_load_at_the_same_time(own_cache: Path) -> None:
    """Ours and another, which waits with all its imports done, so that both begin at once."""
    script = (
        "import sys, torch\n"
        "from trainables.base_model.load import load_base_model\n"
        "from trainables.settings import BaseModelSettings\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "base = load_base_model(BaseModelSettings(sys.argv[1]), 'nf4', 'cpu')\n"
        "print(base.model(torch.tensor([base.tokenizer.encode(['Once upon'])[0].ids])).logits.double().sum().item())\n"
    )
    command = [sys.executable, "-c", script, str(MODELS / "stories260K")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, env=dict(os.environ), text=True, **pipes) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "ready\n"
        other.stdin.write("\n")
        other.stdin.flush()
        base = load_base_model(_settings(), "nf4", "cpu")
        printed, _ = other.communicate(timeout=120)
    assert other.returncode == 0
    ours = base.model(torch.tensor([base.tokenizer.encode(["Once upon"])[0].ids])).logits.double().sum().item()
    assert float(printed) == pytest.approx(ours, rel=1e-6)  # they may have another number of threads
    assert len([path for path in (own_cache / "nf4").iterdir() if path.is_dir()]) == 1


def _gradient(model: nn.Module) -> torch.Tensor:
    """The loss's gradient by the embeddings, which passes backward through every frozen layer."""
    embeddings = model.get_input_embeddings()(IDS).detach().requires_grad_(True)
    model.train()
    model(inputs_embeds=embeddings, labels=IDS).loss.backward()
    assert embeddings.grad is not None
    return embeddings.grad


def test_every_4bit_layer_is_kept_from_repacking() -> None:
    for use_cache in (False, True, True):  # quantized, quantized and kept, reloaded
        base = load_base_model(_settings(), "nf4", "cpu", use_cache=use_cache)
        assert [m.support_avx512bf16_for_cpu for m in _linear4bit(base.model)] == [False] * 35


@pytest.mark.filterwarnings("ignore:bitsandbytes..gemv_4bit")  # of the trapped model, which is the point
def test_evaluating_before_training_changes_no_gradient(tmp_path: Path) -> None:
    """Bit-equal gradients of a model that was evaluated first and of one that never was."""
    if not bitsandbytes.functional.has_avx512bf16():
        pytest.skip("this CPU has no AVX512-BF16, so bitsandbytes never repacks weights here")
    torch.manual_seed(0)
    config = LlamaConfig(  # sizes that repacking takes: multiples of 64
        hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, vocab_size=512
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "stories260K")
    tokenizer.save_pretrained(tmp_path / "model")
    settings = BaseModelSettings(str(tmp_path / "model"))
    never, evaluated, trapped = (load_base_model(settings, "nf4", "cpu").model for _ in range(3))
    _logits(evaluated)
    expected = _gradient(never)
    assert torch.equal(_gradient(evaluated), expected)
    for module in _linear4bit(trapped):  # without the cure: this test can see the trap
        module.support_avx512bf16_for_cpu = True
    _logits(trapped)
    if (_gradient(trapped) - expected).norm() < 0.01 * expected.norm():
        pytest.skip("this bitsandbytes no longer spoils gradients; the cure is not needed any more")
