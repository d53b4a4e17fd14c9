"""Whatever a measurement depends on is in its basis: where one thing differs, nothing is taken over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.support.small_engines import letter_rows, make_engine
from trainables.dataset.rows import Split
from trainables.engine.bench import Bench
from trainables.engine.kept_costs import basis as basis_module
from trainables.engine.kept_costs.basis import cost_basis
from trainables.measure.training_cost import measuring_plan
from trainables.memory.offload import Offload
from trainables.packed.packed_model import PackedModel
from trainables.user_cache import digest

Patch = pytest.MonkeyPatch


def basis_of(bench: Bench, model: PackedModel, typical: int = 2, prompt: int = 4, new_tokens: int = 16) -> str:
    plan = measuring_plan(bench.dataset.train.rows, bench.settings.training.micro_batch_size, typical)
    return digest(cost_basis(bench, model, plan, [1] * prompt, new_tokens))


def training(**changes: Any) -> Callable[[Bench], None]:
    def change(bench: Bench) -> None:
        bench.settings = replace(bench.settings, training=replace(bench.settings.training, **changes))

    return change


def hardware(**changes: Any) -> Callable[[Bench], None]:
    def change(bench: Bench) -> None:
        bench.settings = replace(bench.settings, hardware=replace(bench.settings.hardware, **changes))

    return change


def offload(**values: Any) -> Callable[[Bench], None]:
    return lambda bench: setattr(bench, "offload", Offload(**values))


def base(**changes: Any) -> Callable[[Bench], None]:
    def change(bench: Bench) -> None:
        bench.base = replace(bench.base, **changes)

    return change


def info(**changes: Any) -> Callable[[Bench], None]:
    def change(bench: Bench) -> None:
        bench.base = replace(bench.base, info=replace(bench.base.info, **changes))

    return change


def shape(**changes: Any) -> Callable[[Bench], None]:
    def change(bench: Bench) -> None:
        info(shape=replace(bench.base.info.shape, **changes))(bench)

    return change


def train_rows(rows: Split) -> Callable[[Bench], None]:
    def change(bench: Bench) -> None:
        bench.dataset = replace(bench.dataset, train=rows)

    return change


def single_quantization(bench: Bench) -> None:
    bench.settings = replace(bench.settings, base_model=replace(bench.settings.base_model, double_quantization=False))


def longer_answers(bench: Bench) -> None:
    rows = tuple(replace(row, target_start=1) for row in bench.dataset.train.rows)
    bench.dataset = replace(bench.dataset, train=replace(bench.dataset.train, rows=rows))


@pytest.fixture
def known() -> tuple[Bench, PackedModel, str]:
    engine = make_engine()
    return engine._bench, engine._model, basis_of(engine._bench, engine._model)


@pytest.mark.parametrize(
    "change",
    [
        info(sha256="1" * 64),
        info(max_positions=1),
        shape(key_value_heads=1),
        base(precision="nf4"),
        base(compute_dtype=torch.bfloat16),
        single_quantization,
        hardware(memory_limit_bytes=2**34),
        training(micro_batch_size=1),
        training(gradient_checkpointing=True),
        training(optimizer="adamw_8bit"),
        offload(layers=1),
        offload(layer_inputs=True),
        train_rows(letter_rows(20, 9)),
        longer_answers,
    ],
)
def test_another_base_setting_or_length_is_another_basis(
    known: tuple[Bench, PackedModel, str], change: Callable[[Bench], None]
) -> None:
    bench, model, before = known
    change(bench)
    assert basis_of(bench, model) != before


@pytest.mark.parametrize(
    "change",
    [
        info(path="the same weights elsewhere", revision="v2"),
        training(max_steps=3, schedule="linear", evaluations=1, warmup_ratio=0.5),
        hardware(price_per_hour=3.0, max_adapters_per_gpu=2, measured_costs="anew"),
        train_rows(replace(letter_rows(20, 1), dropped=1)),
    ],
)
def test_what_costs_do_not_depend_on_is_not_in_it(
    known: tuple[Bench, PackedModel, str], change: Callable[[Bench], None]
) -> None:
    bench, model, before = known
    change(bench)
    assert basis_of(bench, model) == before


def test_files_of_versions_without_offload_stay_what_they_were(known: tuple[Bench, PackedModel, str]) -> None:
    bench, model, _ = known
    plan = measuring_plan(bench.dataset.train.rows, bench.settings.training.micro_batch_size, 2)
    assert {"offload", "optimizer"}.isdisjoint(cost_basis(bench, model, plan, [1], 1))


@pytest.mark.parametrize("measured_on", [{"typical": 1}, {"prompt": 5}, {"new_tokens": 4}])
def test_what_is_measured_on_is_in_it(known: tuple[Bench, PackedModel, str], measured_on: dict[str, int]) -> None:
    bench, model, before = known
    assert basis_of(bench, model, **measured_on) != before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MEASURING_VERSION", 99),
        ("ENGINE_VERSION", 99),
        ("_version", lambda name: "1.0" if name == "bitsandbytes" else None),
        ("_version", lambda name: "1.0" if name == "transformers" else None),
        ("driver_version", lambda: "999.1"),
        ("kernels_on", lambda device: True),
        ("_processor_name", lambda: "Another CPU"),
        ("_cards", lambda devices: [{"name": "Another card", "memory_bytes": 1}]),
        ("_places", lambda model: {"q_proj": 1}),
    ],
)
def test_another_machine_or_version_is_another_basis(
    known: tuple[Bench, PackedModel, str], monkeypatch: Patch, name: str, value: Any
) -> None:
    bench, model, before = known
    monkeypatch.setattr(basis_module, name, value)
    assert basis_of(bench, model) != before


def test_another_allocator_attention_number_of_threads_or_way_through_the_layers_is_another_basis(
    known: tuple[Bench, PackedModel, str], monkeypatch: Patch
) -> None:
    bench, model, before = known
    found = {before}
    for change in (
        lambda patch: patch.setenv("PYTORCH_ALLOC_CONF", "expandable_segments:True"),
        lambda patch: patch.setattr(bench.base.model.config, "_attn_implementation", "eager"),
        lambda patch: patch.setattr(basis_module.torch, "get_num_threads", lambda: 99),
        lambda patch: patch.setattr(model, "fused", not model.fused),
        lambda patch: patch.setattr(basis_module.torch.version, "cuda", "99.0"),
    ):
        with monkeypatch.context() as patch:
            change(patch)
            found.add(basis_of(bench, model))
    assert len(found) == 6
    assert basis_of(bench, model) == before
