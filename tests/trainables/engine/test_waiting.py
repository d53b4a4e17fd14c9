"""Who finds no room on the device waits beside it with its whole state, and trains on as if it had never left.

The device's allocator is stood in for: it runs out at chosen tensors. States are compared bit for bit; perplexities to
1e-3 relative, since packs of other members sum in another order (see test_engine.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.lora_cases import lora_config, new_member, random_rows
from tests.support.small_engines import MIXED, SAME, config, join, make_engine, perplexities, run
from tests.support.small_models import tiny_llama
from trainables.engine import parking
from trainables.engine.engine import Engine
from trainables.engine.parking import bring_back, parked
from trainables.packed import training as training_module
from trainables.packed.adapter import LoraAdapter
from trainables.packed.adapter_files import restore_training, training_state
from trainables.packed.member import TrainingMember
from trainables.packed.packed_model import PackedModel
from trainables.packed.training import train_step

ROWS = random_rows(8)
MODEL = PackedModel(tiny_llama(layers=1).train())
COPIED = parking._copied


def members() -> list[TrainingMember]:
    """Two in training, and one that has just joined."""
    made = [new_member(MODEL, lora_config(seed=seed), ROWS) for seed in (1, 2, 3)]
    train_step(MODEL, made[:2], ROWS)
    return made


@pytest.fixture
def runs_out(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], bool]], None]:
    """Bringing back runs out at each tensor, counted through, for which the given function says so."""

    def set_up(when: Callable[[int], bool]) -> None:
        count = iter(range(10**6))

        def copied(tensor: torch.Tensor, device: torch.device, zero: bool) -> torch.Tensor:
            if when(next(count)):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB")
            return COPIED(tensor, device, zero)

        monkeypatch.setattr(parking, "_copied", copied)

    return set_up


ONCE = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@settings(max_examples=25, **ONCE)
@given(st.sets(st.integers(0, 3 * 8 * 7)), st.booleans())
def test_wherever_bringing_back_fails_no_state_is_lost(runs_out, fails: set[int], raises: bool) -> None:
    """At any tensors of any members, whether the work meanwhile has failed itself or not."""
    here, twins = members(), members()
    before = [training_state(member, {}) for member in here]
    runs_out(lambda number: number in fails)
    told = pytest.raises(torch.OutOfMemoryError, match="the work's own") if raises else nullcontext()
    with told, parked(here):  # what bringing back meets is not what is told
        if raises:
            raise torch.OutOfMemoryError("the work's own")
    assert [training_state(member, {}) for member in here] == before  # where they wait, or back
    runs_out(lambda number: False)
    for member in here:
        bring_back(member)
        bring_back(member)  # once more changes nothing
    assert not any(member.away for member in here)
    assert [training_state(member, {}) for member in here] == before
    assert train_step(MODEL, here, ROWS) == train_step(MODEL, twins, ROWS)
    assert [training_state(member, {}) for member in here] == [training_state(member, {}) for member in twins]


def test_one_that_waits_is_not_parked_twice_and_one_that_fits_comes_back_beside_it(runs_out) -> None:
    here = members()
    before = [training_state(member, {}) for member in here]
    first = len(parking._held(here[0]))
    runs_out(lambda number: number < first and number == 3)
    with parked(here):
        pass
    assert [member.away for member in here] == [True, False, False]
    with parked(here):
        assert all(member.away for member in here)
    assert [member.away for member in here] == [True, False, False]  # who waited before the block waits on
    assert [training_state(member, {}) for member in here] == before


def made_off_the_device() -> TrainingMember:
    """As a host makes it that has a card: its layers seem to be elsewhere, and B has no memory of its own."""
    like = new_member(MODEL, lora_config(seed=1), ROWS)
    layers = {name: torch.nn.Linear(*one.base.weight.shape[::-1], device="meta") for name, one in MODEL.linears.items()}
    adapter = LoraAdapter.fresh(like.adapter.config, layers, torch.device("cpu"))
    homes = [torch.device("meta")] * len(adapter.parameters())
    made = TrainingMember(adapter, like.training, like.plan, False, homes)
    made.homes = like.homes  # where it comes back to
    return made


@pytest.mark.parametrize("steps", [0, 1])
def test_a_member_made_off_the_device_takes_a_checkpoint_in_there(steps: int) -> None:
    trained = members()[0] if steps else new_member(MODEL, lora_config(seed=1), ROWS)
    fresh = made_off_the_device()
    assert fresh.away
    memory = sum(one.tensor.untyped_storage().nbytes() for one in parking._held(fresh))
    assert memory < 1.1 * sum(pair.a.nbytes for pair in fresh.adapter.weights.values())
    restore_training(fresh, training_state(trained, {}))
    assert training_state(fresh, {}) == training_state(trained, {})
    bring_back(fresh)
    assert not fresh.away
    assert train_step(MODEL, [fresh], ROWS) == train_step(MODEL, [trained], ROWS)


def short_of_memory(monkeypatch: pytest.MonkeyPatch, draws: Iterator[int], share: int) -> list[str]:
    """Passes and returns to the device run out at one in `share` of the draws; returns where they did."""
    real_pass, failed = training_module.run_pass, []

    def scarce(name, work):
        def did(*arguments):
            if next(draws, 1) % share == 0:
                failed.append(name)
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return work(*arguments)

        return did

    monkeypatch.setattr(training_module, "run_pass", scarce("pass", real_pass))
    monkeypatch.setattr(parking, "_copied", scarce("back", COPIED))
    return failed


def measured(engine: Engine) -> None:
    while any(one.stage == "measuring" for one in engine.residents.values()):
        engine.work()


@settings(max_examples=4, **ONCE)
@given(st.lists(st.integers(0, 40), min_size=20, max_size=120))
def test_any_sequence_of_lacks_that_pass_costs_nobody_anything(alone, draws: list[int]) -> None:
    """A third of the passes and returns run out, wherever they fall, so long as not twice alone: nobody is judged."""
    with pytest.MonkeyPatch.context() as patch:
        engine = make_engine()
        join(engine, {name: MIXED[name] for name in "abd"})
        measured(engine)
        patch.setattr("trainables.engine.failures.end_failed", _never)
        short_of_memory(patch, iter([d if d % 3 or n % 3 == 0 else 1 for n, d in enumerate(draws)]), 3)
        outcomes = run(engine)
    assert {outcome.status for outcome in outcomes.values()} == {"complete"}
    assert perplexities(outcomes) == pytest.approx({name: alone[name] for name in "abd"}, rel=SAME)


def _never(resident, failure, bench) -> None:
    """A verdict on a lack that passes would be the stand-in's doing, not the engine's: the unit is tried again."""
    assert failure.out_of_memory


def test_the_guilty_ends_and_the_innocents_that_waited_learn_the_same(monkeypatch, alone, runs_out) -> None:
    """`c` never fits; each time it was tried alone, the first return of the others runs out."""
    engine = make_engine()
    join(engine, MIXED)
    measured(engine)
    real, due = training_module.run_pass, []

    def run_pass(model, packed, data, one):
        if any(packed[batch.member].adapter.config.rank == 2 for batch in one):
            if all(other.member.away for name, other in engine.residents.items() if name != "c"):
                due.append(True)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(model, packed, data, one)

    monkeypatch.setattr(training_module, "run_pass", run_pass)
    runs_out(lambda number: bool(due) and due.pop())
    outcomes = run(engine)
    assert outcomes["c"].status == "infeasible"
    assert outcomes["c"].infeasible["moment"] == "training"
    assert {outcomes[name].status for name in "abd"} == {"complete"}
    assert perplexities({name: outcomes[name] for name in "abd"}) == pytest.approx(
        {name: alone[name] for name in "abd"}, rel=SAME
    )


def test_one_that_waits_off_the_device_works_when_nobody_else_does(runs_out, alone) -> None:
    """Its return runs out three times; a checkpoint taken meanwhile is whole."""
    engine = make_engine()
    join(engine, {name: MIXED[name] for name in "ab"})
    measured(engine)
    engine.work()
    state = engine.residents["a"].state()[-64:]
    runs_out(lambda number: number < 3)
    with parked([engine.residents["a"].member]):
        pass
    assert engine.residents["a"].member.away
    assert engine.residents["a"].state()[-64:] == state
    outcomes = run(engine)
    assert perplexities(outcomes) == pytest.approx({name: alone[name] for name in "ab"}, rel=SAME)


def test_one_that_never_comes_back_is_judged_when_it_is_alone_and_others_complete(runs_out) -> None:
    engine = make_engine()
    join(engine, {"waits": config(), "other": config(8)})
    measured(engine)
    runs_out(lambda number: True)
    with parked([engine.residents["waits"].member]):
        pass
    outcomes = run(engine)
    assert (outcomes["waits"].status, outcomes["other"].status) == ("infeasible", "complete")
    assert outcomes["waits"].reason == "out of memory while training, alone on the device and tried twice"
