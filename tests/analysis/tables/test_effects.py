"""What a choice does, in percent, over pairs."""

from __future__ import annotations

from dataclasses import replace

from analysis.load import Study
from analysis.tables.effects import effects_table, nf4_price_table
from tests.support.study_directory import MakeRecord


def test_effects_are_changes_in_percent_at_equal_everything_else(study: Study, record: MakeRecord) -> None:
    def of(index: int, precision: str, perplexity: float) -> object:
        return record(
            index, precision, measurements={"perplexity": perplexity, "peak_memory_bytes": 2 - (precision == "nf4")}
        )

    pair = replace(study, records=(of(0, "bf16", 10.0), of(1, "nf4", 11.0)))  # type: ignore[arg-type]
    table = nf4_price_table(pair)
    assert table is not None
    changes = {row[3]: row[4] for row in table.rows}
    assert changes["perplexity"] == "+10.0 %"
    assert changes["peak memory"] == "−50.0 %"
    assert {row[:3] for row in table.rows} == {("precision", "bf16", "nf4")}
    assert {row[5:] for row in table.rows} == {("–", "1", "–")}  # one pair has no interval
    assert effects_table(replace(study, records=(record(0),))) is None
