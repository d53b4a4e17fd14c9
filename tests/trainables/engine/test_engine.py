"""The engine on a tiny model: company changes nothing, the guilty end alone, lack of memory shrinks the pack.

Tolerances: perplexities of the same training in and without company agree to 1e-3 relative in fp32 (sums are taken in
another order; a leaked row or a shared scale moves them by far more); "the same" elsewhere means equal.
"""

from __future__ import annotations

import itertools
import math
import random
import threading
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load

from search_spaces.trial_config import TARGET_SETS, TrialConfig
from tests.support.small_models import tiny_llama
from trainables.base_model.files import BaseModelInfo
from trainables.base_model.load import BaseModel
from trainables.dataset.prepared import PreparedDataset, Row, Split
from trainables.engine import engine as engine_module
from trainables.engine import measured_costs
from trainables.engine.engine import Engine
from trainables.packed import training as packed_training
from trainables.protocol import JoinRequest, NotResidentError
from trainables.settings import (
    BaseModelSettings,
    DatasetSettings,
    GenerationSettings,
    HardwareSettings,
    RungSettings,
    TrainingSettings,
    TrialSettings,
)

SAME = 1e-3
TRAINING = TrainingSettings(
    max_steps=12,
    epochs=10,
    micro_batch_size=2,
    gradient_accumulation_steps=2,
    gradient_checkpointing=False,
    evaluations=2,
)
INFO = BaseModelInfo("tiny", None, "0" * 64, "llama", 1, ("q_proj",), 97, 32, 64, 2, 4, 2, 8, 128, False)


def rows(count: int, seed: int) -> Split:
    draw = random.Random(seed)
    made = []
    for number in range(count):
        tokens = tuple(draw.choice((3, 5, 7)) for _ in range(draw.randrange(6, 24)))
        made.append(Row(tokens, draw.randrange(2, 5), None, str(number)))
    return Split("train", tuple(made), 0, 0)


class Letters:
    """A tokenizer that writes each token as one letter."""

    bos_token_id, eos_token_id = None, 90

    def decode(self, tokens: list[int], **options: object) -> str:
        return "".join(chr(33 + token) for token in tokens if token != self.eos_token_id)


def make_engine(
    most: int | None = None,
    rungs: RungSettings = RungSettings(),  # noqa: B008
    generation: GenerationSettings = GenerationSettings(),  # noqa: B008
    **hooks,
) -> Engine:
    hardware = HardwareSettings("cpu", None, None, most)
    settings = TrialSettings(
        BaseModelSettings("tiny"), DatasetSettings("mine"), TRAINING, generation, hardware=hardware, rungs=rungs
    )
    base = BaseModel(tiny_llama(), Letters(), INFO, "fp32", torch.float32, torch.device("cpu"))
    dataset = PreparedDataset(rows(20, 1), rows(6, 2), rows(5, 3), "print", (), (), {})
    return Engine(settings, base, dataset, **hooks)


def config(rank: int = 4, targets: str = "q_v", rate: float = 2e-2, seed: int = 0, dropout: float = 0.1) -> TrialConfig:
    return TrialConfig("fp32", rank, 2 * rank, dropout, TARGET_SETS[targets], rate, seed)


MIXED = {
    "a": config(),
    "b": config(8, "all_linear", rate=5e-3),
    "c": config(2, rate=1e-2, seed=1),
    "d": config(8, dropout=0.0),
}


def join(engine: Engine, configs: dict[str, TrialConfig], incarnation: int = 0, **more) -> None:
    for name, one in configs.items():
        engine.join(JoinRequest(name, incarnation, one, **more))


def run(engine: Engine, most_units: int = 2000) -> dict:
    for _ in range(most_units):
        if not engine.work() and all(one.stage == "ended" for one in engine.residents.values()):
            break
        for one in engine.residents.values():
            one.awaiting_since = None  # its trial goes on at once
    return {name: one.outcome for name, one in engine.residents.items()}


def perplexities(outcomes: dict) -> dict[str, float]:
    return {name: outcome.measurements["perplexity"] for name, outcome in outcomes.items()}


@pytest.fixture(scope="module")
def alone() -> dict[str, float]:
    """Each of MIXED trained by itself."""
    found = {}
    for name, one in MIXED.items():
        engine = make_engine()
        join(engine, {name: one})
        found |= perplexities(run(engine))
    return found


def test_a_pack_learns_what_each_learns_alone(alone):
    engine = make_engine()
    join(engine, MIXED)
    outcomes = run(engine)
    assert {outcome.status for outcome in outcomes.values()} == {"complete"}
    assert all(outcome.measurements["mean_pack_size"] == 4 for outcome in outcomes.values())
    assert perplexities(outcomes) == pytest.approx(alone, rel=SAME)
    assert min(alone.values()) < 0.9 * outcomes["a"].measurements["base_perplexity"]  # it has learned something


def test_a_report_at_a_rung_brings_what_a_stopped_trial_s_record_is_made_of(alone):
    engine = make_engine(rungs=RungSettings((0.25, 0.4)))
    join(engine, {name: MIXED[name] for name in "ab"})
    outcomes = run(engine)
    assert perplexities(outcomes) == pytest.approx(
        {name: alone[name] for name in "ab"}, rel=SAME
    )  # measured, not moved
    for name in "ab":
        reports = engine.residents[name].reports
        assert [report.step for report in reports] == [3, 5]
        so_far, complete = reports[1].so_far, outcomes[name].measurements
        assert (so_far.status, so_far.reason, so_far.has_adapter) == ("stopped", None, False)
        assert [point["step"] for point in so_far.curve] == [3, 5]
        assert so_far.measurements["perplexity"] == so_far.curve[-1]["perplexity"]
        assert so_far.measurements["train_steps"] == 5
        assert so_far.measurements["test_perplexity"] is None
        assert so_far.measurements["peak_memory_bytes"] == complete["peak_memory_bytes"]
        assert so_far.comparable == outcomes[name].comparable


def test_one_adapter_a_step_where_the_study_says_so(alone):
    engine = make_engine(most=1)
    join(engine, {name: MIXED[name] for name in "ab"})
    outcomes = run(engine)
    assert [outcome.measurements["mean_pack_size"] for outcome in outcomes.values()] == [1, 1]
    assert perplexities(outcomes) == pytest.approx({name: alone[name] for name in "ab"}, rel=SAME)


def test_joining_and_leaving_on_the_way_changes_nothing_for_the_others(alone):
    engine = make_engine()
    join(engine, {name: MIXED[name] for name in "ab"})
    for _ in range(8):
        engine.work()
    join(engine, {"c": MIXED["c"]})
    for _ in range(4):
        engine.work()
    engine.leave("b", 0)
    join(engine, {"d": MIXED["d"]})
    outcomes = run(engine)
    assert perplexities(outcomes) == pytest.approx({name: alone[name] for name in "acd"}, rel=SAME)


def test_a_member_that_diverges_leaves_and_the_others_never_notice(alone):
    engine = make_engine()
    join(engine, {"a": MIXED["a"], "bad": config(rank=4, rate=1.0), "b": MIXED["b"]})
    with torch.no_grad():
        for pair in engine.residents["bad"].member.adapter.weights.values():
            pair.b.fill_(math.inf)
    outcomes = run(engine)
    assert outcomes["bad"].status == "diverged"
    assert "perplexity" not in outcomes["bad"].measurements
    assert perplexities({name: outcomes[name] for name in "ab"}) == pytest.approx(
        {name: alone[name] for name in "ab"}, rel=SAME
    )


def limited(monkeypatch, allows) -> list[int]:
    """Passes raise as torch does where `allows(ranks, tokens)` is false; answers the tokens of those that ran."""
    real, ran = packed_training.run_pass, []

    def run_pass(model, members, data, one):
        tokens = sum(batch.rows for batch in one) * max(batch.longest for batch in one)
        if not allows([members[batch.member].adapter.config.rank for batch in one], tokens):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...")
        ran.append(tokens)
        return real(model, members, data, one)

    monkeypatch.setattr(packed_training, "run_pass", run_pass)
    return ran


def test_out_of_memory_shrinks_the_passes_and_loses_nothing(monkeypatch, alone):
    engine = make_engine()
    join(engine, MIXED)
    while any(one.stage == "measuring" for one in engine.residents.values()):
        engine.work()
    ran = limited(monkeypatch, lambda ranks, tokens: tokens <= 130)
    outcomes = run(engine)
    assert max(ran) <= 130
    assert perplexities(outcomes) == pytest.approx(alone, rel=SAME)


def test_who_does_not_fit_alone_is_infeasible_with_moment_and_bytes(monkeypatch, alone):
    engine = make_engine()
    join(engine, MIXED)
    while any(one.stage == "measuring" for one in engine.residents.values()):
        engine.work()
    limited(monkeypatch, lambda ranks, tokens: 2 not in ranks)  # c has rank 2
    outcomes = run(engine)
    assert outcomes["c"].status == "infeasible"
    assert outcomes["c"].infeasible["moment"] == "training"
    assert outcomes["c"].infeasible["requested_bytes"] == 2 * 2**30
    assert outcomes["c"].infeasible["source"] == "observed"
    assert perplexities({name: outcomes[name] for name in "abd"}) == pytest.approx(
        {name: alone[name] for name in "abd"}, rel=SAME
    )


def test_a_footprint_that_does_not_fit_ends_its_trial_alone(monkeypatch, alone):
    engine = make_engine()
    limited(monkeypatch, lambda ranks, tokens: 2 not in ranks)
    join(engine, MIXED)
    outcomes = run(engine)
    assert outcomes["c"].status == "infeasible"
    assert outcomes["c"].infeasible["moment"] == "measuring"
    assert {outcomes[name].status for name in "abd"} == {"complete"}


def test_any_other_error_ends_only_the_guilty_one(monkeypatch, alone):
    engine = make_engine()
    join(engine, MIXED)
    real = packed_training.run_pass

    def run_pass(model, members, data, one):
        if any(members[batch.member].adapter.config.rank == 2 and members[batch.member].step == 3 for batch in one):
            raise ValueError("a broken row")
        return real(model, members, data, one)

    monkeypatch.setattr(packed_training, "run_pass", run_pass)
    outcomes = run(engine)
    assert outcomes["c"].status == "failed"
    assert "a broken row" in outcomes["c"].reason
    assert outcomes["c"].measurements["train_steps"] == 3
    assert perplexities({name: outcomes[name] for name in "abd"}) == pytest.approx(
        {name: alone[name] for name in "abd"}, rel=SAME
    )


def test_a_footprint_is_measured_once_for_all_that_share_it(monkeypatch):
    engine = make_engine()
    join(engine, {"a": config(), "b": config(rate=1e-3), "c": config(seed=1), "d": config(8)})
    measured = []
    real = engine._costs._measure
    monkeypatch.setattr(engine._costs, "_measure", lambda one: measured.append(one.rank) or real(one))
    outcomes = run(engine)
    assert sorted(measured) == [4, 8]
    peaks = {name: outcome.measurements["peak_memory_bytes"] for name, outcome in outcomes.items()}
    assert peaks["a"] == peaks["b"] == peaks["c"]


def slots_of(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, seconds: float, fails: int | None = None
) -> list[list[int]]:
    """The ranks that are measured in each slot, each so many seconds long; rank `fails` does not fit."""
    slots, clock = [], itertools.count()
    real, measure = measured_costs.parked, engine._costs._measure

    def measured(one: TrialConfig):
        slots[-1].append(one.rank)
        if one.rank == fails:
            raise torch.OutOfMemoryError("Tried to allocate 2.00 GiB")
        return measure(one)

    monkeypatch.setattr(measured_costs, "parked", lambda members: slots.append([]) or real(members))
    monkeypatch.setattr(measured_costs, "time", SimpleNamespace(monotonic=lambda: seconds * next(clock)))
    monkeypatch.setattr(engine._costs, "_measure", measured)
    while any(one.stage == "measuring" for one in engine.residents.values()):
        engine.work()
    return slots


def test_new_footprints_share_a_slot_until_its_time_is_up(monkeypatch):
    """Moving the others aside takes its time; but trials ask of a host, which answers between slots."""
    engine = make_engine()
    join(engine, {f"rank {rank}": config(rank) for rank in (1, 2, 3, 4, 5)})
    join(engine, {"again": config(2, seed=1)})
    assert slots_of(engine, monkeypatch, 4.0) == [[1, 2, 3], [4, 5]]


def test_a_footprint_that_fails_ends_its_slot_and_no_other_trial(monkeypatch):
    engine = make_engine()
    join(engine, {f"rank {rank}": config(rank) for rank in (1, 2, 3, 4)})
    assert slots_of(engine, monkeypatch, 0.0, fails=2) == [[1, 2], [2], [3, 4]]
    assert engine.residents["rank 2"].outcome.status == "infeasible"
    assert all(engine.residents[f"rank {rank}"].outcome is None for rank in (1, 3, 4))


def test_a_suspects_footprint_is_measured_by_itself(monkeypatch):
    engine = make_engine()
    join(engine, {f"rank {rank}": config(rank) for rank in (1, 2, 3, 4)})
    engine.residents["rank 3"].suspect = True
    assert slots_of(engine, monkeypatch, 0.0) == [[3], [1, 2, 4]]


def test_who_has_ended_and_not_left_is_not_measured(monkeypatch):
    engine = make_engine()
    join(engine, {"ended": config(16)})
    run(engine)
    ended = engine.residents["ended"]
    there, measure = [], engine._costs._measure

    def measured(one: TrialConfig):
        there.append(sum(tensor.numel() for tensor in ended.member.adapter.named_tensors().values()))
        return measure(one)

    monkeypatch.setattr(engine._costs, "_measure", measured)
    join(engine, {"new": config(4)})
    engine.work()
    assert (ended.stage, there) == ("ended", [0])
    assert sum(tensor.numel() for tensor in ended.member.adapter.named_tensors().values()) > 0


def test_measuring_leaves_a_pack_in_progress_bit_for_bit_as_it_was():
    engine = make_engine()
    join(engine, {"a": MIXED["a"]})
    for _ in range(6):
        engine.work()
    before = {name: tensor.clone() for name, tensor in engine.residents["a"].member.adapter.named_tensors().items()}
    join(engine, {"d": config(16)})
    engine.work()
    assert engine.residents["d"].stage == "training"
    after = engine.residents["a"].member.adapter.named_tensors()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_nothing_is_asked_of_a_host_while_others_are_off_the_device(monkeypatch):
    """A checkpoint taken then would have nothing in it; it is taken between two units, and is whole."""
    empty = []

    def between():
        sizes = [next(iter(one.member.adapter.parameters())).numel() for one in engine.residents.values()]
        empty.append(0 in sizes)

    engine = make_engine(between=between)
    join(engine, {"large": config(), "other": config(8, "all_linear")})
    while min(one.member.step for one in engine.residents.values()) < 2:
        engine.work()
        for one in engine.residents.values():
            one.awaiting_since = None
    real, alone = engine_module.accumulate_gradients, []

    def accumulate(model, members, *rest):
        others = [one.member for one in engine.residents.values() if one.member not in members]
        if engine.residents["large"].member in members:
            if len(members) > 1 or any(next(iter(one.adapter.parameters())).numel() for one in others):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            alone.append(others[0].away)
        return real(model, members, *rest)

    monkeypatch.setattr(engine_module, "accumulate_gradients", accumulate)
    before = engine.residents["large"].member.step
    engine.work()
    assert engine.residents["large"].member.step == before + 1
    assert alone == [True]  # it did its step with the other away
    assert not any(one.member.away for one in engine.residents.values())
    assert len(empty) > 2
    assert not any(empty)


def test_a_base_model_whose_loss_is_not_finite_diverges():
    engine = make_engine()
    with torch.no_grad():
        engine.base.model.model.norm.weight.fill_(float("inf"))
    join(engine, {"a": config()})
    outcome = run(engine)["a"]
    assert outcome.status == "diverged"
    assert "the loss was nan before the first step, alone" in outcome.reason


def test_a_stale_incarnation_is_refused_and_an_old_goodbye_changes_nothing():
    engine = make_engine()
    join(engine, {"a": MIXED["a"]}, incarnation=3)
    with pytest.raises(NotResidentError, match="stale"):
        join(engine, {"a": MIXED["a"]}, incarnation=3)
    engine.leave("a", 2)
    assert "a" in engine.residents
    with pytest.raises(NotResidentError):
        engine.resident("a", 2)
    join(engine, {"a": MIXED["a"]}, incarnation=4)
    assert engine.resident("a", 4).member.step == 0


def test_a_restored_trial_goes_on_to_the_same_end(alone):
    engine = make_engine()
    join(engine, {"a": MIXED["a"]})
    for _ in range(6):
        engine.work()
    state, step = engine.residents["a"].state(), engine.residents["a"].member.step
    assert 0 < step < 12
    other = make_engine()
    join(other, {"a": MIXED["a"]}, incarnation=1, state=state)
    outcome = run(other)["a"]
    assert outcome.measurements["perplexity"] == pytest.approx(alone["a"], rel=1e-6)
    assert outcome.measurements["restarts"] == 1
    assert [point["step"] for point in outcome.curve] == [6, 12]


def test_suspects_work_alone_until_each_has_taken_a_step():
    notes: list[tuple[str, bool]] = []
    engine = make_engine(note_alone=lambda trial_id, begins: notes.append((trial_id, begins)))
    join(engine, {name: MIXED[name] for name in "ab"}, suspect=True)
    outcomes = run(engine)
    assert {outcome.status for outcome in outcomes.values()} == {"complete"}
    assert [name for name, begins in notes if begins] == ["a", "b", "a", "b"]  # measuring, then a step each
    assert notes[0::2] == [(name, True) for name, _ in notes[1::2]]
    assert all(11 / 12 < outcome.measurements["mean_pack_size"] / 2 < 1 for outcome in outcomes.values())


def test_held_out_questions_stand_beside_their_reference_and_how_likely_it_is():
    """The perplexity of a row's reference is that of its own nats, as the evaluation summed them."""
    engine = make_engine(generation=GenerationSettings((), 4, held_out=2))
    join(engine, {"a": config(rate=5e-3)})
    outcome = run(engine)["a"]
    rows_of, rows_there = outcome.eval_rows, rows(6, 2).rows
    assert len(outcome.samples) == 2
    for number, sample in enumerate(outcome.samples):
        row = rows_there[number]
        assert sample["prompt"] == Letters().decode(list(row.tokens[: row.target_start]))
        assert sample["reference"] == Letters().decode(list(row.tokens[row.target_start :]))
        expected = math.exp(rows_of["nats"][number] / rows_of["tokens"][number])
        assert sample["tuned_perplexity"] == pytest.approx(expected, rel=1e-9)
        assert sample["base_perplexity"] > sample["tuned_perplexity"]  # it has learned something
        assert len(sample["tuned"]) == len(sample["base"]) == 4
        assert sample["tuned"] != sample["base"]


def test_a_pack_trains_on_while_a_finished_adapter_is_written():
    """The first to finish is held back until the other has taken all its steps; what changes it then is not kept."""
    release, kept = threading.Event(), {}

    def keep(trial_id: str, files: dict[str, bytes]) -> None:
        assert release.wait(60)
        kept[trial_id] = load(files["adapter_model.safetensors"])

    engine = make_engine(most=1, keep_adapter=keep)
    join(engine, {"a": config(seed=3), "b": config(8, "all_linear")})
    a, b = engine.residents["a"], engine.residents["b"]
    while b.next_work != "finishing":
        assert engine.work()
        b.awaiting_since = a.awaiting_since = None
    assert (a.stage, a.handover.done(), b.handover) == ("finishing", False, None)  # they go one by one
    weights = {name: tensor.clone() for name, tensor in a.member.adapter.named_tensors().items()}
    for parameter in a.member.adapter.parameters():
        parameter.data.zero_()
    release.set()
    outcomes = run(engine)
    assert {outcome.status for outcome in outcomes.values()} == {"complete"}
    assert set(kept) == {"a", "b"}
    for name, tensor in weights.items():
        assert torch.equal(kept["a"][f"base_model.model.{name}.weight"], tensor)
    assert {"measuring", "training", "evaluating", "testing", "sampling", "finishing"} >= set(engine.seconds()) - {
        "waiting",
        "all",
    }


def test_no_footprint_is_measured_while_an_adapter_is_on_its_way():
    """Its copies would be in the process' peak."""
    kept, order = threading.Event(), []

    def keep(trial_id: str, files: dict[str, bytes]) -> None:
        kept.wait(0.5)
        order.append(f"{trial_id} kept")

    engine = make_engine(most=1, keep_adapter=keep)
    measured = engine._costs._measure
    engine._costs._measure = lambda one: (order.append(f"rank {one.rank} measured"), measured(one))[1]
    join(engine, {"a": config(4)})
    while engine.residents["a"].handover is None:
        assert engine.work()
        engine.residents["a"].awaiting_since = None
    join(engine, {"b": config(2)})
    run(engine)
    assert order == ["rank 4 measured", "a kept", "rank 2 measured", "b kept"]


def test_a_keeper_that_answers_the_second_time_is_enough():
    calls = []

    def keep(trial_id: str, files: dict[str, bytes]) -> None:
        calls.append(trial_id)
        if len(calls) == 1:
            raise TimeoutError("the keeper is busy")

    engine = make_engine(keep_adapter=keep)
    join(engine, {"a": config()})
    assert run(engine)["a"].status == "complete"
    assert calls == ["a", "a"]


def test_an_adapter_that_cannot_be_written_fails_its_trial_alone():
    def keep(trial_id: str, files: dict[str, bytes]) -> None:
        if trial_id == "a":
            raise MemoryError("No space left")  # not the card's: nothing is infeasible

    engine = make_engine(keep_adapter=keep)
    join(engine, {"a": config(), "b": config(seed=1)})
    outcomes = run(engine)
    assert {name: outcome.status for name, outcome in outcomes.items()} == {"a": "failed", "b": "complete"}
    assert "the adapter could not be kept: MemoryError: No space left" in outcomes["a"].reason


def test_a_warm_up_trains_a_scratch_adapter_that_leaves_nothing_behind(monkeypatch):
    engine, stepped = make_engine(), []
    real = packed_training.run_pass

    def run_pass(model, members, rows, one):
        stepped.append((members[0].adapter.config.target_modules, len(members[0].plan)))
        return real(model, members, rows, one)

    monkeypatch.setattr(packed_training, "run_pass", run_pass)
    engine.warm_up()
    assert stepped == [(tuple(TARGET_SETS["all_linear"]), 1)]
    assert not engine.residents
    monkeypatch.setattr(packed_training, "run_pass", lambda *pass_: (_ for _ in ()).throw(RuntimeError("no kernel")))
    engine.warm_up()  # a trial will find it, and say so
