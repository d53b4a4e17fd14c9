"""What of the things sampled matters."""

from __future__ import annotations

from dataclasses import replace

from analysis.load import Study
from analysis.tables.importance import importance_table
from study.records.record import TrialRecord
from tests.support.study_directory import MakeRecord


def test_what_matters_has_a_column_for_each_thing_sampled(study: Study, record: MakeRecord) -> None:
    def made(index: int) -> TrialRecord:
        rank, rate = (4, 8, 16, 32)[index % 4], (1e-5, 1e-4, 1e-3)[index % 3]
        measurements = {"perplexity": 10 + 1e4 * abs(rate - 1e-4), "peak_memory_bytes": 1e6 * rank}
        return record(index, "nf4", rank, "q_v", rate, measurements=measurements)

    many = replace(study, records=tuple(map(made, range(36))))
    table = importance_table(many)
    assert table is not None
    assert table.headings == ("Objective", "Rank", "Learning rate")
    assert table.rows == (("Perplexity", "0 %", "100 %"), ("Peak memory", "100 %", "0 %"))
    assert importance_table(replace(many, records=many.records[:20])) is None
