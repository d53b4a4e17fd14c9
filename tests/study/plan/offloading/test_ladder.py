"""The ladder of offloads: against every offload there is, on small models and cards of any size."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from study.plan.fitting import Fit, fit, fit_with, load_of, memory_setting
from study.plan.offloading.ladder import Permitted, fewest_layers, mildest
from study.plan.offloading.needs import Needs
from study.plan.workload import Workload
from tests.support.plan_cases import GIB, cards, config, cpus, workload
from trainables.base_model.shape import ModelShape
from trainables.memory.offload import RESIDENT, STREAM_BUFFERS, Offload

SMALL = ModelShape(1024, 2816, 8, 16, 4, 64, 32000, False, 17 * 1024)
MIB = 2**20


def small(tied: bool = False, **changes: Any) -> Workload:
    shape = dataclasses.replace(SMALL, tie_word_embeddings=tied)
    training = {name: value for name, value in changes.items() if name != "asked"}
    asked = changes.get("asked", "auto")
    return dataclasses.replace(workload(1024, **training), shape=shape, base_in_host_memory=asked)


def every_offload(permitted: Permitted) -> list[Offload]:
    """All that is permitted, one by one."""
    layers = range(permitted.fewest, permitted.most + 1)
    flags = [
        (False, True)[: 1 + one] for one in (permitted.embedding, permitted.optimizer_state, permitted.layer_inputs)
    ]
    return [Offload(*values) for values in itertools.product(layers, *flags)]


def rung(away: Offload, needs: Needs) -> tuple[Any, ...]:
    """The documented order: what streams nothing, then without the embedding, then by time, bytes moved, and parts."""
    if not away.streams:
        return (0, away.layer_inputs, away.optimizer_state)
    return (1, away.embedding, float(f"{needs.seconds(away):.6g}"), needs.moved_bytes(away), away)


@given(
    part=st.floats(0.15, 1.1), host_gib=st.floats(4.2, 6.5), rank=st.sampled_from([8, 128, 512]), tied=st.booleans(),
    precision=st.sampled_from(["fp16", "nf4"]), asked=st.sampled_from(["auto", "never", "always"]), plain=st.booleans(),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_the_mildest_of_all_that_fit_is_chosen(part, host_gib, rank, tied, precision, asked, plain):
    """Brute force over every offload: none that fits is milder, and where none fits nothing is chosen."""
    load = small(tied, asked=asked, gradient_checkpointing=not plain, micro_batch_size=4)
    one = config(precision, rank, "all_linear")
    whole = fit_with(one, load, cards(count=1), RESIDENT)
    context = whole.largest.constants.context_bytes
    limit = round(part * (whole.device_bytes - context))
    target = cards(count=1, host_memory_bytes=round(host_gib * GIB), limit_bytes=limit)
    needs, permitted = (
        Needs(memory_setting(precision, load, target), load_of(one, load), load, target),
        Permitted.of(load, target),
    )
    fitting = [away for away in every_offload(permitted) if needs.on_card(away) and needs.in_host(away)]
    found = fit(one, load, target)
    assert found.fits == bool(fitting)
    if fitting:
        assert found.offload == min(fitting, key=lambda away: rung(away, needs))
        assert fit_with(one, load, target, found.offload) == found
    elif found.lacking:
        assert needs.on_card(found.lacking)
        assert not needs.in_host(found.lacking)


@given(
    part=st.floats(0.15, 1.1), host_gib=st.floats(4.2, 6.5), targets=st.sampled_from(["q_v", "all_linear"]),
    rank=st.sampled_from([8, 128, 512]), layers=st.integers(2, 8), precision=st.sampled_from(["fp16", "nf4"]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_every_part_that_waits_is_needed(part, host_gib, targets, rank, layers, precision):
    """Without any one the card does not hold it: neither moments that their buffers outweigh wait, nor few layers."""
    load = dataclasses.replace(small(), shape=dataclasses.replace(SMALL, layers=layers))
    one = config(precision, rank, targets)
    whole = fit_with(one, load, cards(count=1), RESIDENT)
    limit = round(part * (whole.device_bytes - whole.largest.constants.context_bytes))
    target = cards(count=1, host_memory_bytes=round(host_gib * GIB), limit_bytes=limit)
    needs = Needs(memory_setting(precision, load, target), load_of(one, load), load, target)
    found = fit(one, load, target)
    for away in (found.offload, found.lacking or RESIDENT):
        for name, value in away.to_dict().items():
            assert not value or not needs.on_card(dataclasses.replace(away, **{name: type(value)()}))
        assert away.layers == 0 or away.layers > STREAM_BUFFERS


def test_moments_that_their_buffers_outweigh_stay():
    """Rank 8 of two targets: 7 MiB, where buffers take 64."""
    load, target = small(), cards(count=1)
    resident, away = (fit_with(config(), load, target, Offload(optimizer_state=waits)) for waits in (False, True))
    assert away.device_bytes > resident.device_bytes
    context = resident.largest.constants.context_bytes
    tight = cards(count=1, limit_bytes=resident.device_bytes - context - 1)
    assert not fit(config(), load, tight).offload.optimizer_state


@given(fewest=st.integers(0, 3), most=st.integers(0, 60), bound=st.integers(0, 70))
@settings(max_examples=60, deadline=None)
def test_bisection_finds_the_fewest_layers(fewest, most, bound):
    assume(fewest <= most)
    found = fewest_layers(RESIDENT, Permitted(fewest, most), lambda away: away.layers >= bound)
    least = max(1, fewest, bound)
    assert found == (Offload(least) if least <= most else None)


def test_the_embedding_waits_only_where_nothing_fits_without():
    """By itself where no layer helps."""
    permitted = Permitted(0, 4, embedding=True)
    assert mildest(permitted, lambda away: away.embedding, lambda away: True, lambda away: 0) == Offload(0, True)
    both = mildest(permitted, lambda away: away.embedding and away.layers > 1, lambda away: True, lambda away: 0)
    assert both == Offload(2, True)
    assert mildest(permitted, lambda away: away.layers > 2, lambda away: True, lambda away: 0) == Offload(3)
    assert mildest(permitted, lambda away: away.layers > 2, lambda away: away.layers < 3, lambda away: 0) is None


def test_what_a_study_lets_wait():
    target, layers = cards(count=1), SMALL.layers
    assert Permitted.of(small(), target) == Permitted(0, layers, True, True, True)
    assert not Permitted.of(small(tied=True), target).embedding
    assert Permitted.of(small(asked="never"), target).everything == Offload(0, False, True, True)
    assert Permitted.of(small(asked="always"), target).first == Offload(layers)
    assert Permitted.of(small(gradient_checkpointing=False), target).everything == Offload(optimizer_state=True)
    assert Permitted.of(small(), cpus(64 * GIB)).everything == RESIDENT
    assert Permitted.of(small(asked="never"), cpus(64 * GIB)).everything == RESIDENT
    assert Permitted.of(small(asked="always"), cpus(64 * GIB)).everything == Offload(layers)


def held(precision: str, gib: float | None, **changes: Any) -> Fit:
    target = cards(count=1, host_memory_bytes=gib and round(gib * GIB), **changes)
    return fit(config(precision), workload(), target)


@pytest.mark.parametrize(("gib", "fits"), [(None, True), (8.0, True), (6.0, False)])
def test_host_memory_must_hold_what_waits(gib, fits):
    """fp16 on a T4: 7 layers, 2.84 GiB, beside 4 GiB and a twentieth; a machine of 6 GiB has 1.7 for it."""
    one = held("fp16", gib)
    assert one.fits == fits
    assert one.offload.layers == (7 if fits else 0)
    assert (one.lacking is None) == fits
    if fits:
        assert one.host_bytes == pytest.approx(7 * 218_103_808 * 2, rel=1e-3)


def test_a_streamed_base_takes_three_layers_less_than_its_buffers():
    """Closed form: L layers leave, three buffers of one come; what an adapter adds is the same."""
    load, target = workload(), cards(count=1)
    whole, streamed = (fit_with(config("fp16"), load, target, Offload(layers)) for layers in (0, 20))
    layer = 218_103_808 * 2
    assert whole.base_bytes - streamed.base_bytes == pytest.approx(17 * layer, rel=1e-4)
    assert (streamed.state_bytes, streamed.host_adapter_bytes) == (whole.state_bytes, 0)
    away = fit_with(config("fp16"), load, target, Offload(optimizer_state=True))
    assert whole.state_bytes == 2 * away.state_bytes  # weights and gradients stay
