"""What is marked where a part of a training waited in host memory, and what is said of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from analysis.figures.front_figure import front_figure
from analysis.figures.front_rows import front_points
from analysis.host_memory import MARK, NOTE, TIMED, any_waited, marked
from analysis.load import Study
from analysis.pareto import front
from analysis.report.notices import notices
from analysis.report.trial_tables import front_table, trials_table
from analysis.statistics.effects import effects
from analysis.tables.effects import nf4_price_table
from analysis.wording import headline, trial_name
from study.records.record import TrialRecord
from study.reporting.summary import ending_text, front_rows, standing
from tests.support.study_directory import MakeRecord, made_up_records


@pytest.fixture
def mixed(study: Study) -> Study:
    """The made-up study, its bf16 trials with layers in host memory: they hold less of the card than any other."""
    return replace(study, records=tuple(map(streamed, made_up_records())))


def streamed(record: TrialRecord) -> TrialRecord:
    if record.config.precision != "bf16":
        return record
    device = {**record.device, "offload": {"layers": 32, "embedding": True}}
    peak = record.measurements["peak_memory_bytes"]
    measurements = {**record.measurements, "peak_memory_bytes": peak and peak // 4}
    return replace(record, device=device, measurements=measurements, comparable={"quality": "0a1b", "cost": "s"})


def test_times_are_marked_and_nothing_else(record: MakeRecord) -> None:
    one = streamed(record(precision="bf16"))
    for metric in one.measurements:
        there = one.measurements[metric] is not None
        assert marked(one, metric, "1") == (f"1 {MARK}" if metric in TIMED and there else "1"), metric
        assert marked(record(), metric, "1") == "1"
    assert trial_name(one).endswith("learning rate 2e-4, 32 layers and embedding in host memory")
    assert "memory" not in trial_name(record())


def test_their_memory_is_theirs_so_they_stay_on_the_front_and_are_marked_there(mixed: Study) -> None:
    members = front(mixed.records, mixed.objectives)
    assert any_waited(members)
    table = str(front_table(mixed, members))
    for words in ("In host memory", "32 layers and embedding", MARK, NOTE):
        assert words in table
        assert words in str(trials_table(mixed, members))
    headings, rows = front_rows(mixed)
    assert rows[0][headings.index("in host memory")] == "32 layers and embedding"
    assert rows[0][headings.index("train tokens/s")].endswith(MARK)
    assert NOTE in ending_text(mixed, None)
    assert NOTE in standing(mixed)
    assert "32 layers and embedding in host memory" in headline(mixed)


def test_the_figure_rings_them(mixed: Study, study: Study) -> None:
    figure = front_figure(mixed)
    assert figure is not None
    ringed = [point["trial_id"] for point in front_points(mixed) if point["in_host_memory"]]
    drawn = [one for one in figure.chart["layer"] if one["mark"].get("strokeDash") == [3, 2]]
    assert [row["trial_id"] for row in drawn[0]["data"]["values"]] == ringed
    assert "(32 layers and embedding)" in figure.caption
    plain = front_figure(study)
    assert plain is not None
    assert len(plain.chart["layer"]) == len(figure.chart["layer"]) - 1
    assert "Ringed" not in plain.caption


def test_their_costs_are_said_not_to_compare_and_nothing_else_is(mixed: Study, study: Study) -> None:
    (sentence,) = notices(mixed)
    assert "In 6 of 11 complete trials a part of the training waited in host memory" in sentence
    other = [replace(one, comparable={**one.comparable, "cost": "t"}) for one in mixed.records[:1]]
    assert len(notices(replace(mixed, records=(*other, *mixed.records[1:])))) == 2
    alike = [one for one in mixed.records if one.config.precision == "bf16"]
    assert notices(replace(mixed, records=tuple(alike))) == []


def test_an_effect_on_cost_is_no_effect_of_what_waited(mixed: Study, study: Study) -> None:
    for metric, pairs in (("perplexity", 4), ("peak_memory_bytes", 0), ("seconds_per_epoch", 0)):
        (found,) = effects(mixed.records, "precision", "bf16", "nf4", [metric], resamples=20)
        (before,) = effects(study.records, "precision", "bf16", "nf4", [metric], resamples=20)
        assert (before.pairs, found.pairs) == (4, pairs)
    table = nf4_price_table(mixed)
    assert table is not None
    assert {row[3] for row in table.rows}.isdisjoint({"peak memory", "time per epoch"})
    (within,) = effects(mixed.records, "rank", 8, 64, ["peak_memory_bytes"], resamples=20)
    assert within.pairs == 4  # of each precision by itself
