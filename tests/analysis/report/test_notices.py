"""What a reader is told before comparing numbers."""

from __future__ import annotations

from dataclasses import replace

from analysis.load import Study
from analysis.report.notices import NO_EOS, PROCESS_MEMORY, notices
from tests.support.study_directory import MakeRecord


def test_a_study_that_compares_needs_no_notice(study: Study) -> None:
    assert notices(study) == []


def test_process_memory_is_called_what_it_is(study: Study, record: MakeRecord) -> None:
    cpu = replace(study, records=(record(device={"memory_source": "process resident peak"}),))
    assert PROCESS_MEMORY in notices(cpu)


def test_models_that_have_not_learned_to_stop_are_told(study: Study, record: MakeRecord) -> None:
    def told(dataset: dict[str, object]) -> bool:
        return NO_EOS in notices(replace(study, records=(record(dataset=dataset),)))

    assert told({"eos": None})
    assert not told({"eos": "</s>"})
    assert not told({})  # a record of before it was noted


def test_what_does_not_compare_is_said(study: Study, record: MakeRecord) -> None:
    other_cost = record(1, comparable={"quality": "0a1b", "cost": "other"})
    text = " ".join(notices(replace(study, records=(record(0), other_cost))))
    assert "Not all complete trials compare in cost; device, batch or engine differ" in text
    assert "compare in quality" not in text
    other_data = record(2, comparable={"quality": "other", "cost": "2c3d"})
    assert "compare in quality; base model, data or masking differ" in " ".join(
        notices(replace(study, records=(record(0), other_data)))
    )
    stopped = replace(other_data, status="stopped")
    assert notices(replace(study, records=(record(0), stopped, record(3, comparable={})))) == []
