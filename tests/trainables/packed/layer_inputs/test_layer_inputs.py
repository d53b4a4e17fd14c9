"""Passes whose layer inputs wait in host memory are those that keep them on the device, to the bit."""

from __future__ import annotations

import pytest
import torch

from tests.support.lora_cases import random_rows
from tests.support.small_models import tiny_llama
from tests.support.trainables.packed_cases import gradient, make_member
from tests.support.trainables.streams.late_stream import LateMark, LateStream
from trainables.packed.adapter_files import training_state
from trainables.packed.layer_inputs import kept_pass
from trainables.packed.layer_inputs.kept_pass import KeptInput, KeptPass
from trainables.packed.layer_inputs.layer_inputs import LayerInputs, LayerInputsInHostMemory, layer_inputs
from trainables.packed.packed_model import PackedModel
from trainables.packed.training import accumulate_gradients, train_step

ROWS = random_rows(20, longest=12)
LAYERS = 4


def model_with(inputs: LayerInputs, fused: bool) -> PackedModel:
    """Four layers under gradient checkpointing, by our own layers or by transformers'."""
    model = PackedModel(tiny_llama(layers=LAYERS).train(), fused=fused)
    model.model.gradient_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
    model.layer_inputs = inputs
    return model


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[KeptInput]:
    """Every input that is sent to host memory."""
    made: list[KeptInput] = []

    class Seen(KeptInput):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            made.append(self)

    monkeypatch.setattr(kept_pass, "KeptInput", Seen)
    return made


@pytest.mark.parametrize("fused", [True, False])
def test_gradients_and_trainings_are_the_same_to_the_bit(fused: bool, seen: list[KeptInput]) -> None:
    """Members of unlike targets, with and without dropout: one step's gradients, then three steps."""
    results = []
    for inputs in (LayerInputs(), LayerInputsInHostMemory(smallest_bytes=0)):
        model = model_with(inputs, fused)
        members = [make_member(model, ROWS, number, 6) for number in (0, 1, 3)]
        losses = accumulate_gradients(model, members, ROWS)
        gradients = torch.cat([gradient(member) for member in members])
        assert bool(seen) == isinstance(inputs, LayerInputsInHostMemory)
        steps = [train_step(model, members, ROWS) for _ in range(3)]
        results.append((losses, gradients, steps, [training_state(member, {}) for member in members]))
    (losses, gradients, *rest), (own_losses, own_gradients, *own_rest) = results
    assert own_losses == losses
    assert torch.equal(own_gradients, gradients)
    assert own_rest == rest


@pytest.mark.parametrize("waits", [True, False])
def test_copies_may_be_as_late_as_a_card_makes_them(waits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are made when a layer waits for them; a layer that does not wait shows in the gradients."""
    monkeypatch.setattr(kept_pass, "SideStream", LateStream)
    if not waits:
        monkeypatch.setattr(LateMark, "hold_device", lambda mark: None)
    gradients = []
    for inputs in (LayerInputs(), LayerInputsInHostMemory(smallest_bytes=0)):
        model = model_with(inputs, fused=True)
        member = make_member(model, ROWS, 1, 6)
        accumulate_gradients(model, [member], ROWS)
        gradients.append(gradient(member))
    assert torch.equal(*gradients) == waits


@pytest.mark.parametrize("lowest", [0, 2])
def test_only_layers_below_which_a_gradient_goes_send_their_input(lowest: int, seen: list[KeptInput]) -> None:
    """That of the lowest layer with an adapter is a leaf, and stays; what the last norm keeps of the last one goes."""
    model = model_with(LayerInputsInHostMemory(smallest_bytes=0), fused=True)
    accumulate_gradients(model, [make_member(model, ROWS, 6, 6, layers=(lowest, LAYERS - 1))], ROWS)
    assert len(seen) == LAYERS - 1 - lowest + 1


@pytest.mark.parametrize("fused", [True, False])
def test_two_inputs_are_on_the_device_at_a_time(
    fused: bool, seen: list[KeptInput], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one at work, and the one on its way: counted whenever autograd keeps or reads one."""
    counts: list[int] = []

    def counted(name: str) -> None:
        work = getattr(KeptPass, name)

        def counting(kept: KeptPass, one: object) -> object:
            done = work(kept, one)
            counts.append(sum(each.on_device is not None for each in seen))
            return done

        monkeypatch.setattr(KeptPass, name, counting)

    counted("pack")
    counted("unpack")
    model = model_with(LayerInputsInHostMemory(smallest_bytes=0), fused)
    accumulate_gradients(model, [make_member(model, ROWS, 1, 6)], ROWS)
    assert len(seen) >= LAYERS - 1
    assert max(counts) == 1  # beside the one that was just read
    assert all(one.on_device is None and one._block is None for one in seen)


def test_blocks_serve_pass_after_pass() -> None:
    inputs = LayerInputsInHostMemory(smallest_bytes=0)
    model = model_with(inputs, fused=True)
    member = make_member(model, ROWS, 1, 6)
    addresses = []
    for _ in range(2):
        accumulate_gradients(model, [member], ROWS)
        (lane,) = inputs._lanes.values()
        addresses.append({block.data_ptr() for block in lane.pool._free})
    assert len(addresses[0]) >= LAYERS - 1
    assert addresses[1] == addresses[0]


def test_a_pass_that_fails_keeps_nothing(seen: list[KeptInput], monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of its backward part; and the next one is as if it had not been."""
    inputs = LayerInputsInHostMemory(smallest_bytes=0)
    model, plain = model_with(inputs, fused=True), model_with(LayerInputs(), fused=True)
    member, twin = make_member(model, ROWS, 1, 6), make_member(plain, ROWS, 1, 6)
    unpack, calls = KeptPass.unpack, iter(range(100))

    def scarce(kept: KeptPass, held: torch.Tensor | KeptInput) -> torch.Tensor:
        if isinstance(held, KeptInput) and next(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return unpack(kept, held)

    with monkeypatch.context() as patch:
        patch.setattr(KeptPass, "unpack", scarce)
        with pytest.raises(torch.OutOfMemoryError):
            train_step(model, [member], ROWS)
    assert len(seen) >= LAYERS - 1
    assert all(one.on_device is None and one._block is None for one in seen)
    assert train_step(model, [member], ROWS) == train_step(plain, [twin], ROWS)
    assert training_state(member, {}) == training_state(twin, {})


def test_a_block_that_is_given_away_too_early_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one block for all layers the comparison of gradients sees it."""
    gradients = []
    for inputs in (LayerInputs(), LayerInputsInHostMemory(smallest_bytes=0)):
        model = model_with(inputs, fused=True)
        member = make_member(model, ROWS, 1, 6)
        shared = torch.empty(2**20, dtype=torch.uint8)
        monkeypatch.setattr("trainables.packed.layer_inputs.block_pool.host_block", lambda *_, one=shared: one)
        accumulate_gradients(model, [member], ROWS)
        gradients.append(gradient(member))
    assert not torch.equal(*gradients)


def test_small_inputs_and_what_is_no_layers_input_stay(seen: list[KeptInput]) -> None:
    model = model_with(layer_inputs(in_host_memory=True), fused=True)
    accumulate_gradients(model, [make_member(model, ROWS, 1, 6)], ROWS)
    assert seen == []
    weight = torch.ones(8, requires_grad=True)
    with LayerInputsInHostMemory(smallest_bytes=0).of_pass(8) as forward:
        with forward:
            product = (weight * 2.0) ** 2  # keeps 2 w, which is not a leaf, and the factor
            kept = len(seen)
            other = torch.stack([weight, weight]) ** 2  # of another size
        (product.sum() + other.sum()).backward()
    assert kept == len(seen) == 1
    assert torch.equal(weight.grad, torch.full((8,), 12.0))


def test_an_input_is_read_once() -> None:
    weight = torch.ones(8, requires_grad=True)
    with LayerInputsInHostMemory(smallest_bytes=0).of_pass(8) as forward:
        with forward:
            total = ((weight * 2.0) ** 2).sum()
        total.backward(retain_graph=True)
        with pytest.raises(RuntimeError, match="one backward pass"):
            total.backward()
