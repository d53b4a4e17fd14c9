"""The table of how likely each configuration is on the front."""

from __future__ import annotations

import math

from analysis.load import Study
from analysis.statistics.bootstrap import Interval
from analysis.statistics.front_uncertainty import MemberUncertainty, likeliest_members
from analysis.tables.table import Table
from analysis.wording import configuration_name, format_value
from study.records.record import TrialRecord

MOST_ROWS = 20


def uncertainty_table(study: Study) -> Table | None:
    """How likely each configuration is on the front; None without one, or where trials saw different documents."""
    comparable = [record for record in study.records if record.status == "complete"]
    try:
        members = likeliest_members(comparable, study.objectives, MOST_ROWS)
    except ValueError:  # evaluated on different documents: nothing to draw from together
        return None
    if not members:
        return None
    by_id = {record.trial_id: record for record in study.records}
    caption = (
        "Evaluation documents are resampled 1,000 times, the same for all trials, and seeds where there are several; "
        "brackets hold the middle 95 %. A configuration near 100 % is on the front in nearly every resample; one at "
        "30 % to 70 % may or may not belong to it. With one seed, nothing here says how much the seed matters."
    )
    headings = ("Trials", "Configuration", "On the front", "Likely", *(o.label for o in study.objectives))
    rows = tuple(_member_row(member, by_id, study) for member in members)
    return Table("uncertainty", "How sure the front is", caption, headings, rows)


def _member_row(member: MemberUncertainty, by_id: dict[str, TrialRecord], study: Study) -> tuple[str, ...]:
    return (
        ", ".join(member.trial_ids),
        configuration_name(by_id[member.trial_ids[0]]),
        "yes" if member.on_front else "no",
        f"{100 * member.probability:.0f} %",
        *(_bracketed(objective.metric, member.intervals[objective.metric]) for objective in study.objectives),
    )


def _bracketed(metric: str, interval: Interval) -> str:
    value = format_value(metric, interval.value)
    if interval.low == interval.high or not math.isfinite(interval.high - interval.low):
        return value
    return f"{value} ({format_value(metric, interval.low)} to {format_value(metric, interval.high)})"
