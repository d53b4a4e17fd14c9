"""The table of what early stopping saved."""

from __future__ import annotations

from analysis.load import Study
from analysis.tables.table import Table
from analysis.wording import format_duration, format_share


def savings_table(study: Study) -> Table | None:
    """What early stopping saved: steps and time not spent; None where no trial was stopped."""
    stopped = [record for record in study.records if record.status == "stopped"]
    complete = [record for record in study.records if record.status == "complete"]
    whole = max((steps for record in complete if (steps := record.measurements["train_steps"])), default=None)
    if not stopped or whole is None:
        return None
    taken = sum(record.measurements["train_steps"] or 0 for record in stopped)
    spared = whole * len(stopped) - taken
    share = spared / (whole * (len(stopped) + len(complete)))
    rows = [
        ("trials stopped", f"{len(stopped)} of {len(stopped) + len(complete)}"),
        ("optimizer steps of a whole training", f"{whole:,}"),
        ("steps that the stopped trials took", f"{taken:,} of {whole * len(stopped):,}"),
        ("steps not taken, of all", format_share(round(share, 3))),
    ]
    walls = [record.measurements["wall_seconds"] for record in stopped if record.measurements["wall_seconds"]]
    if walls:
        rows.append(("wall time of the stopped trials, in packs", format_duration(sum(walls))))
    caption = "A stopped trial frees its place for the next one; it was judged worse, and is not on the front."
    return Table("savings", "What early stopping saved", caption, ("", "Value"), tuple(rows), words=0)
