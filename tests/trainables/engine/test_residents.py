"""A resident's way: stages, curve, reports, pack sizes, and what a checkpoint carries of them."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import pytest

from tests.support.lora_cases import lora_config, new_member, random_rows
from tests.support.small_models import tiny_llama
from trainables.engine.residents import Resident
from trainables.measure.evaluation import Evaluation
from trainables.packed.adapter_files import training_state
from trainables.packed.member import StepResult
from trainables.packed.optimization import learning_rate_at
from trainables.packed.packed_model import PackedModel
from trainables.packed.training import train_step
from trainables.protocol import REPORT_STEPS, Outcome

ROWS = random_rows(12)  # three steps an epoch


@pytest.fixture(scope="module")
def model() -> PackedModel:
    return PackedModel(tiny_llama(layers=1).train())


def joined(model: PackedModel, steps: int = 24, evaluations: int = 4, incarnation: int = 0) -> Resident:
    training = {"epochs": 99, "max_steps": steps, "evaluations": evaluations}
    resident = Resident("t1", incarnation, new_member(model, lora_config(), ROWS, **training))
    resident.stage = resident.next_stage()  # as after the measurement alone
    return resident


def step(resident: Resident, loss: float = 2.0, pack_size: int = 1) -> None:
    """One training step, as the history sees it."""
    resident.member.step += 1
    resident.member.train_tokens += 30
    resident.note_step(StepResult(1, loss, 1.0, 0.1, 30, applied=True), pack_size)


def evaluated(nats: float = 3.0) -> Evaluation:
    return Evaluation((nats,), (1,), None)


def live(resident: Resident, losses=lambda step: 2.0) -> list[str]:
    """The stages of a whole life."""
    stages = []
    while resident.stage in ("training", "evaluating"):
        stages.append(resident.stage)
        if resident.stage == "training":
            step(resident, losses(resident.member.step))
        else:
            resident.note_evaluation(evaluated(1 / resident.member.step))
    return [*stages, resident.stage]


@pytest.mark.parametrize(("steps", "evaluations"), [(24, 4), (3, 4), (1, 1), (10, 3), (7, 1), (5, 5)])
def test_every_step_and_every_evaluation_is_due_once(steps: int, evaluations: int, model: PackedModel) -> None:
    resident = joined(model, steps, evaluations)
    stages = live(resident)
    assert stages.count("training") == resident.member.step == steps
    assert stages.count("evaluating") == min(steps, evaluations)
    assert stages[-2:] == ["evaluating", "finishing"]
    curve = resident.history.curve
    assert [point["step"] for point in curve] == sorted({point["step"] for point in curve})
    assert curve[-1]["step"] == steps


def test_the_curve_holds_the_mean_loss_since_the_point_before(model: PackedModel) -> None:
    resident = joined(model, steps=8, evaluations=2)
    live(resident, losses=lambda number: float(number))
    member = resident.member
    assert resident.history.curve == [
        {
            "step": at,
            "train_loss": loss,
            "perplexity": pytest.approx(math.exp(1 / at)),
            "learning_rate": learning_rate_at(at - 1, 8, member.adapter.config.learning_rate, member.training),
        }
        for at, loss in ((4, (0 + 1 + 2 + 3) / 4), (8, (4 + 5 + 6 + 7) / 4))
    ]


@pytest.mark.parametrize(
    ("steps", "evaluations", "reported"), [(24, 4, [6, 12, 18]), (12, 6, [6]), (8, 8, [5]), (4, 4, [])]
)
def test_reports_are_apart_and_the_last_is_the_outcome(
    steps: int, evaluations: int, reported: list[int], model: PackedModel
) -> None:
    resident = joined(model, steps, evaluations)
    live(resident)
    assert [report.step for report in resident.reports] == reported
    assert all(later - earlier >= REPORT_STEPS for earlier, later in zip([0, *reported], reported, strict=False))


def test_every_rung_is_measured_and_reported_with_what_the_trial_came_to(model: PackedModel) -> None:
    training = {"epochs": 99, "max_steps": 24, "evaluations": 2}
    resident = Resident("t1", 0, new_member(model, lora_config(), ROWS, **training), rungs=(2, 5, 9))
    resident.stage = resident.next_stage()
    came_to = []
    while resident.stage in ("training", "evaluating"):
        if resident.stage == "training":
            step(resident)
        else:
            resident.note_evaluation(evaluated(), lambda: came_to.append(len(resident.history.curve)))
    assert [point["step"] for point in resident.history.curve] == [2, 5, 9, 12, 24]
    assert [report.step for report in resident.reports] == [2, 5, 9]  # 12 is too near, 24 is the end
    assert {report.total_steps for report in resident.reports} == {24}
    assert came_to == [1, 2, 3]  # asked once a report, its own point included


def test_who_has_reported_waits_for_its_trial(model: PackedModel) -> None:
    resident = joined(model, steps=24, evaluations=4)
    while not resident.reports:
        assert resident.awaiting_since is None
        if resident.stage == "training":
            step(resident)
        else:
            resident.note_evaluation(evaluated())
    assert resident.awaiting_since is not None
    assert resident.stage == "training"


def test_news_is_what_has_not_been_seen(model: PackedModel) -> None:
    resident = joined(model)
    live(resident)
    assert [report.step for report in resident.news(0).reports] == [6, 12, 18]
    assert [report.step for report in resident.news(2).reports] == [18]
    assert resident.news(3).reports == ()
    assert (resident.news(3).step, resident.news(3).outcome) == (24, None)
    outcome = Outcome("complete")
    resident.end(outcome)
    assert resident.stage == "ended"
    assert resident.news(3).outcome is outcome


def test_the_mean_pack_size_counts_itself_in_every_step(model: PackedModel) -> None:
    resident = joined(model)
    assert resident.mean_pack_size is None
    for size in (1, 4, 4, 3):
        step(resident, pack_size=size)
    assert resident.mean_pack_size == 3.0
    assert resident.status().pack_size == 3


def test_the_status_shows_the_newest_loss(model: PackedModel) -> None:
    resident = joined(model, steps=8, evaluations=2)
    assert resident.status().train_loss is None
    assert resident.status().perplexity is None
    step(resident, 4.0)
    step(resident, 2.0)
    resident.note_speed(0.5)
    assert resident.status().train_loss == 3.0
    assert resident.status().tokens_per_second == 60.0
    step(resident, 3.0)
    step(resident, 3.0)
    resident.note_evaluation(evaluated(0.0))
    status = resident.status()
    assert (status.train_loss, status.perplexity) == (3.0, 1.0)  # of the last point, until the next step
    assert (status.trial_id, status.stage, status.step, status.total_steps) == ("t1", "training", 4, 8)


def test_an_evaluation_is_forgotten_when_the_weights_change(model: PackedModel) -> None:
    resident = joined(model, steps=8, evaluations=2)
    for _ in range(4):
        step(resident)
    resident.note_evaluation(evaluated())
    assert resident.evaluation is not None
    step(resident)
    assert resident.evaluation is None


@pytest.mark.parametrize("left_at", [0, 2, 4, 6, 8])
def test_a_checkpoint_carries_the_history(left_at: int, model: PackedModel) -> None:
    """Left after any step, evaluated or not: the same curve and mean pack size as without a break, no report lost."""
    straight, first = joined(model, 8, 2), joined(model, 8, 2)
    live(straight, float)
    while first.member.step < left_at:
        if first.stage == "training":
            step(first, float(first.member.step))
        else:
            first.note_evaluation(evaluated(1 / first.member.step))
    state = first.state()
    second = joined(model, 8, 2, incarnation=1)
    second.restore(state)
    second.stage = second.next_stage()
    assert second.stage == first.stage
    live(second, float)
    assert second.history.curve == straight.history.curve
    assert second.mean_pack_size == straight.mean_pack_size
    assert second.member.train_tokens == straight.member.train_tokens
    assert second.history.last_report_step == straight.history.last_report_step
    assert second.wall_seconds >= first.history.wall_seconds


def test_a_checkpoint_at_the_end_only_finishes(model: PackedModel) -> None:
    first, second = joined(model, 8, 2), joined(model, 8, 2)
    live(first)
    second.restore(first.state())
    assert second.next_stage() == "finishing"


def test_a_real_step_becomes_history(model: PackedModel) -> None:
    resident = joined(model, steps=3, evaluations=1)
    (result,) = train_step(model, [resident.member], ROWS)
    resident.note_step(result, 1)
    assert resident.status().train_loss == result.loss
    assert (resident.status().step, resident.mean_pack_size) == (1, 1.0)
    resident.note_speed(2.0)
    assert resident.status().tokens_per_second == result.tokens / 2 == resident.member.train_tokens / 2


@pytest.mark.parametrize(("taken", "highest"), [([], None), ([None, None], None), ([5, 9, 7], 9), ([5, None], 5)])
def test_the_highest_pack_peak_is_kept(taken: list[int | None], highest: int | None, model: PackedModel) -> None:
    resident = joined(model)
    for peak in taken:
        resident.note_pack_peak(peak)
    assert resident.history.pack_peak_memory_bytes == highest


def test_a_checkpoint_without_a_pack_peak_is_restored(model: PackedModel) -> None:
    """Earlier versions wrote none."""
    first, second = joined(model), joined(model)
    live(first)
    history = {name: value for name, value in asdict(first.history).items() if name != "pack_peak_memory_bytes"}
    second.restore(training_state(first.member, history))
    second.note_pack_peak(7)
    assert second.history.pack_peak_memory_bytes == 7
    assert second.history.curve == first.history.curve


@pytest.mark.parametrize("history", [{"laps": 3}, {"curve": [], "steps": 1}])
def test_a_checkpoint_with_another_history_is_refused(history: dict[str, Any], model: PackedModel) -> None:
    """By a ValueError, after which the trial begins anew."""
    with pytest.raises(ValueError, match="history must be as it was written"):
        joined(model).restore(training_state(joined(model).member, history))
