"""Good models with a change drawn at random: every plan ends with a plan or with faults, within seconds."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from study.cli.main import main
from study.errors import DONE, WRONG_INPUT
from tests.border.hostile import MIB, UNEXPECTED, bounded
from tests.support.made_up_studies import write_study_file
from tests.support.trainables.gguf_files import small_llama, write_gguf
from tests.support.trainables.hostile_models import WEIGHTS
from trainables.base_model.checks.configuration import OPTIONAL, REQUIRED
from trainables.base_model.checks.rope import RULES

MOST_SECONDS = 10
GGUF_HEADER_BYTES = 5760  # of the small Llama's file
SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 97, "max_position_embeddings": 128, "bos_token_id": 0,
    "eos_token_id": 1, "rms_norm_eps": 1e-6, "hidden_act": "silu", "tie_word_embeddings": False, "use_cache": True,
}  # fmt: skip
GOOD = (
    {"model_type": "llama", "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}, "attention_bias": False},
    {"model_type": "llama", "rope_theta": 5e5, "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64}},
    {"model_type": "mistral", "sliding_window": 4096, "torch_dtype": "bfloat16"},
    {"model_type": "qwen2", "use_sliding_window": False, "max_window_layers": 2, "rope_theta": 1e6},
    {"model_type": "qwen3", "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}},
    {"model_type": "smollm3", "no_rope_layers": [1, 0], "layer_types": ["full_attention"] * 2, "pad_token_id": 2},
)  # fmt: skip
KEYS = (
    *SIZES, *REQUIRED, *OPTIONAL, "model_type", "rope_parameters", "rope_scaling", "quantization_config",
    *(f"rope_scaling.{name}" for name in RULES), *(f"rope_parameters.{name}" for name in RULES),
    "text_config", "is_decoder", "pruned_heads", "torchscript", "attribute_map", "keys_to_ignore_at_inference",
    "base_model_tp_plan", "sub_configs", "to_dict", "__class__", "_auto_class", "model_name", "x" * 300, "",
)  # fmt: skip
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 200),
    st.sampled_from([2**31, 2**62, 2**63, 10**30, -(2**63), 10**6, 1000, 1001]),
    st.sampled_from([0.0, 0.5, 1.5, 64.0, -1.0, 1e308, math.nan, math.inf, -math.inf]),
    st.sampled_from(["", "su", "yarn", "longrope", "silu", "auto", "32", "../x", "x" * 5000, "\0", "\ud800"]),
    st.lists(st.one_of(st.none(), st.integers(-1, 3), st.just("full_attention")), max_size=5),
    st.dictionaries(st.sampled_from(["rope_type", "factor", "a"]), st.one_of(st.none(), st.integers(), st.just("su"))),
    st.just([[[]]]), st.just({"a": {"b": {"c": [None]}}}),
)  # fmt: skip


def ends_as_it_should(study: Path, capsys: pytest.CaptureFixture[str]) -> int:
    """Plans, holds the exit code, the words and the time, and returns the exit code."""
    capsys.readouterr()
    with bounded(MOST_SECONDS, 800 * MIB):
        exit_code = main(["plan", str(study)])
    said = "".join(capsys.readouterr())
    assert exit_code in (DONE, WRONG_INPUT), said
    assert [word for word in UNEXPECTED if word in said] == [], said
    assert exit_code == DONE or "must" in said, said
    return exit_code


def changed(values: Mapping[str, Any], key: str, value: Any, drop: bool) -> dict[str, Any]:
    """The configuration with one value changed or dropped; a key `a.b` is of the mapping at `a`."""
    result: dict[str, Any] = json.loads(json.dumps(values))
    name, _, inner = key.partition(".")
    place = result.setdefault(name, {}) if inner and isinstance(result.get(name, {}), dict) else result
    if drop:
        place.pop(inner or name, None)
    else:
        place[inner or name] = value
    return result


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, good_model: Path) -> Path:
    """The good model without its weights, which a plan can do without."""
    folder = tmp_path_factory.mktemp("mutated")
    shutil.copytree(good_model, folder / "model")
    (folder / "model" / WEIGHTS).unlink()
    write_study_file(folder, folder / "model")
    return folder


ONCE = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_the_configurations_that_are_changed_are_good(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for values in GOOD:
        (base / "model" / "config.json").write_text(json.dumps({**SIZES, **values}), encoding="utf-8")
        assert ends_as_it_should(base / "study.yaml", capsys) == DONE, values


@ONCE
@given(
    values=st.sampled_from(GOOD),
    changes=st.lists(st.tuples(st.sampled_from(KEYS), VALUES, st.booleans()), min_size=1, max_size=3),
)
def test_a_changed_configuration_is_planned_or_refused(
    base: Path, capsys: pytest.CaptureFixture[str], values: dict[str, Any], changes: list[tuple[str, Any, bool]]
) -> None:
    """One to three values of a configuration are dropped, of another type, or extreme."""
    config: dict[str, Any] = {**SIZES, **values}
    for key, value, drop in changes:
        config = changed(config, key, value, drop)
    (base / "model" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    ends_as_it_should(base / "study.yaml", capsys)


@pytest.fixture(scope="module")
def whole_gguf(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "good.gguf", small_llama(), q8=True).read_bytes()


PATCHES = st.one_of(
    st.binary(min_size=1, max_size=8),
    st.sampled_from(
        [b"\0" * 8, b"\xff" * 8, b"\xff" * 4, (2**62).to_bytes(8, "little"), (10**6).to_bytes(4, "little")]
    ),
)


@ONCE
@given(patches=st.lists(st.tuples(st.floats(0, 1), PATCHES), min_size=1, max_size=3), cut=st.floats(0, 1) | st.none())
def test_a_gguf_file_with_other_bytes_is_planned_or_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], whole_gguf: bytes, patches: Any, cut: float | None
) -> None:
    """Bytes of the header, its tokens and its tensors' places differ; or the file ends early."""
    content = bytearray(whole_gguf)
    for place, patch in patches:
        at = int(place * GGUF_HEADER_BYTES)
        content[at : at + len(patch)] = patch
    file = tmp_path / "model.gguf"
    file.write_bytes(content if cut is None else content[: int(cut * len(content))])
    ends_as_it_should(write_study_file(tmp_path, file), capsys)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory, good_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    shutil.copytree(good_model, folder / "model")
    write_study_file(folder, folder / "model")
    return folder


@ONCE
@given(patches=st.lists(st.tuples(st.floats(0, 1), PATCHES), min_size=1, max_size=3), cut=st.floats(0, 1) | st.none())
def test_weights_with_other_bytes_are_planned_or_refused(
    loaded: Path, capsys: pytest.CaptureFixture[str], good_model: Path, patches: Any, cut: float | None
) -> None:
    """Bytes of the safetensors header differ, or the file ends early."""
    whole = (good_model / WEIGHTS).read_bytes()
    content, header_bytes = bytearray(whole), 8 + int.from_bytes(whole[:8], "little")
    for place, patch in patches:
        at = int(place * header_bytes)
        content[at : at + len(patch)] = patch
    (loaded / "model" / WEIGHTS).write_bytes(content if cut is None else content[: int(cut * len(content))])
    ends_as_it_should(loaded / "study.yaml", capsys)
