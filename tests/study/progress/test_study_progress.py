"""What is remembered of trials, and the time that passes."""

from __future__ import annotations

from study.progress.study_progress import StudyProgress
from study.records.objectives import Objective
from tests.support.made_up_studies import make_config, make_record
from trainables.protocol import ResidentStatus

OBJECTIVES = (Objective("perplexity", "minimize", 20.0), Objective("peak_memory_bytes", "minimize", 2**30))


def training(trial_id: str, step: int = 3, pack_size: int = 1) -> ResidentStatus:
    return ResidentStatus(trial_id, "training", step, 10, 2.5, 14.2, pack_size, 410.0, 300 * 2**20)


def test_a_trial_whose_host_died_is_remembered() -> None:
    progress = StudyProgress(2, OBJECTIVES)
    progress.note_statuses({"t1": training("t1", 4), "t0": training("t0", 3)}, now=1.0)
    progress.note_statuses({"t1": training("t1", 5)}, now=2.0)  # a new host knows only one of them
    assert [(one.trial_id, one.step) for one in progress.at_work] == [("t0", 3), ("t1", 5)]


def test_an_ended_trial_does_not_come_back_by_a_late_word() -> None:
    progress = StudyProgress({"fp32": 2}, OBJECTIVES)
    progress.note_statuses({"t0": training("t0")}, now=1.0)
    progress.note_record(make_record("t0"), now=2.0)
    progress.note_statuses({"t0": training("t0"), "t1": training("t1")}, now=3.0)
    assert [one.trial_id for one in progress.at_work] == ["t1"]
    assert [record.trial_id for record in progress.ended] == ["t0"]


def test_the_largest_pack_in_training_counts() -> None:
    progress = StudyProgress(4, OBJECTIVES)
    assert progress.adapters_together == 0
    waiting = ResidentStatus("t3", "measuring", 0, 10, pack_size=7)
    progress.note_statuses(
        {"t0": training("t0", pack_size=3), "t1": training("t1", pack_size=2), "t3": waiting}, now=1.0
    )
    assert progress.adapters_together == 3


def test_time_goes_by_and_silence_is_noticed() -> None:
    progress = StudyProgress(1, OBJECTIVES)
    progress.advance(100.0)
    progress.note_statuses({}, now=110.0)
    progress.advance(150.0)
    assert (progress.seconds, progress.silence_seconds) == (50.0, 40.0)


def test_precision_follows_the_configuration_else_the_order_of_phases() -> None:
    """A trial known to be NF4 tells nothing sure of fp32; one of unknown configuration is of the phase that runs."""

    def played(configured: bool) -> bool | None:
        progress = StudyProgress({"fp32": 1, "nf4": 1}, OBJECTIVES)
        if configured:
            progress.note_started("t0", make_config("nf4"))
        progress.advance(0.0)
        progress.note_statuses({"t0": training("t0", 0)}, now=1.0)
        progress.note_statuses({"t0": training("t0", 5)}, now=2.0)
        progress.note_record(make_record("t0", make_config("nf4" if configured else "fp32")), now=3.0)
        remaining = progress.remaining()
        return remaining.complete if remaining else None

    assert played(configured=True) is False
    assert played(configured=False) is False


def test_nothing_is_left_when_all_trials_have_ended() -> None:
    progress = StudyProgress(2, OBJECTIVES)
    progress.note_record(make_record("t0"), now=1.0)
    progress.note_record(make_record("t1", status="failed"), now=2.0)
    remaining = progress.remaining()
    assert remaining is not None
    assert (remaining.seconds, remaining.complete) == (0.0, True)
