"""Shows where a study's time went: the stages of its processes as bars, and in a sentence what they come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from analysis.load import Study
from analysis.report.rendering import render
from analysis.tables.table import Table
from analysis.wording import format_duration, shorten
from study.records.timeline.milestones import (
    AT_WORK,
    TRAINING,
    TRIALS,
    Milestones,
    Stage,
    is_at_work,
    is_host,
    milestones,
    start_of,
    time_by_kind,
)

MOST_HOSTS, MOST_ROWS, MOST_BARS = 6, 80, 120  # that are shown: of a study, of all processes, of a stage
LEAST_SHARE = 0.02  # of the wall time, from which the sentence names what took it
SPREAD = 0.95  # of the time from its begin to its end: a stage that took less of it is a sum of stretches
NAME_SHOWN = 60  # characters
CAPTION = (
    "From the command on, by the clocks of the machines, as far as the study was when this page was written. Green: "
    "training and evaluating. Amber: measuring costs. Grey: other stages. Pale: trials run, or many short stretches."
)
OLDER = "Seconds from each host’s first packed step on; this study was run before there was a time line."


@dataclass(frozen=True)
class Bar:
    """A stretch of a row, in percent of the whole time line's width."""

    left: float
    width: float
    kind: str  # of the style sheet
    title: str


@dataclass(frozen=True)
class Row:
    """All stages of one process that have one name, or all of them; times are in seconds from the command on."""

    process: str
    stage: str
    began: float
    ended: float
    seconds: float
    bars: tuple[Bar, ...]


def timeline(study: Study) -> Markup | None:
    """The time line of the study's newest run that trained; None where none is known of any run."""
    run = shown_run(study.runs)
    if not run:
        return render("table.html", table=host_table(study.host_seconds)) if study.host_seconds else None
    reached = milestones(run)
    return render(
        "timeline.html",
        sentence=sentence(reached, time_by_kind(run)),
        processes=processes(run),
        stages=rows(run),
        end=f"{reached.end_seconds:.0f} s",
        caption=" ".join([CAPTION, *_left_out(study.runs, run)]),
    )


def shown_run(runs: Sequence[Sequence[Stage]]) -> Sequence[Stage]:
    """The newest run in which a host trained, else the newest; empty where there is none."""
    trained = [run for run in runs if any(one.name == TRAINING for one in run)]
    return next(reversed(trained or list(runs)), ())


def sentence(reached: Milestones, seconds: Mapping[str, float]) -> str:
    """Says where the wall time went, and when the first line and the first packed step came."""
    wall = reached.end_seconds
    others = sorted(((value, kind) for kind, value in seconds.items() if kind != AT_WORK), reverse=True)
    named = (
        [f"{kind} {100 * value / wall:.0f} %" for value, kind in others if value >= LEAST_SHARE * wall] if wall else []
    )
    rest = f"; the rest: {', '.join(named)}" if named else ""
    moments = (
        ("The first line came after", reached.first_line_seconds),
        ("the first packed step began after", reached.first_packed_step_seconds),
    )
    told = ", ".join(f"{words} {format_duration(value)}" for words, value in moments if value is not None)
    whole = f"Of {format_duration(wall)}, {100 * reached.at_work_share:.0f} % went into {AT_WORK}{rest}."
    return f"{whole} {told[:1].upper()}{told[1:]}." if told else whole


def processes(run: Sequence[Stage]) -> list[Row]:
    """One row for each process, in the order in which they began; all trials are one process here."""
    of_process: dict[str, list[Stage]] = {}
    for one in sorted(run, key=lambda one: one.began):
        if not one.is_part:
            of_process.setdefault(_shown_process(one.process), []).append(one)
    hosts = [process for process in of_process if is_host(process)][:MOST_HOSTS]
    shown = [process for process in of_process if process in hosts or not is_host(process)][:MOST_ROWS]
    zero, end = start_of(run), max(one.ended for one in run)
    return [_row(process, "", of_process[process], zero, end) for process in shown]


def rows(run: Sequence[Stage]) -> list[Row]:
    """One row for each stage of each process that `processes` shows, in its order."""
    order = {row.process: place for place, row in enumerate(processes(run))}
    of_row: dict[tuple[str, str], list[Stage]] = {}
    for one in sorted(run, key=lambda one: one.began):
        if shorten(_shown_process(one.process), NAME_SHOWN) in order:
            of_row.setdefault((_shown_process(one.process), one.name), []).append(one)
    zero, end = start_of(run), max(one.ended for one in run)
    shown = sorted(of_row, key=lambda key: order[shorten(key[0], NAME_SHOWN)])[:MOST_ROWS]  # stable: by their begin
    return [_row(*key, of_row[key], zero, end) for key in shown]


def _row(process: str, name: str, stages: Sequence[Stage], zero: float, end: float) -> Row:
    wall = max(end - zero, 1e-9)
    bars = tuple(_bar(one, zero, wall) for one in stages[:MOST_BARS])
    began, ended = stages[0].began - zero, max(one.ended for one in stages) - zero
    seconds = sum(one.seconds for one in stages)
    return Row(shorten(process, NAME_SHOWN), shorten(name, NAME_SHOWN), began, ended, seconds, bars)


def _bar(stage: Stage, zero: float, wall: float) -> Bar:
    left = min(1.0, max(0.0, (stage.began - zero) / wall))
    width = min(1.0, max(0.0, (stage.ended - zero) / wall)) - left
    title = f"{shorten(stage.name, NAME_SHOWN)}: {stage.seconds:.1f} s"
    return Bar(100 * left, 100 * width, " ".join(_kinds(stage)), title)


def _kinds(stage: Stage) -> list[str]:
    """The style sheet's kinds of a bar."""
    spread = stage.seconds < SPREAD * (stage.ended - stage.began)
    there = {
        "work": is_at_work(stage),
        "measuring": is_host(stage.process) and stage.name.startswith("measuring"),
        "faint": spread or stage.name.startswith(TRIALS),
        "moment": stage.ended == stage.began,
    }
    return [kind for kind, holds in there.items() if holds]


def _shown_process(process: str) -> str:
    return "trials" if process.startswith("trial ") else process


def _left_out(runs: Sequence[Sequence[Stage]], run: Sequence[Stage]) -> list[str]:
    hosts = len({one.process for one in run if is_host(one.process)})
    more_hosts = f"The first {MOST_HOSTS} of {hosts} hosts are shown." if hosts > MOST_HOSTS else ""
    more_runs = f"The study was run in {len(runs)} parts; this is one of them." if len(runs) > 1 else ""
    return [text for text in (more_hosts, more_runs) if text]


def host_table(host_seconds: Mapping[str, Mapping[str, float]]) -> Table:
    """The seconds by kind of work of each host, from a study before there was a time line."""
    kinds = list(dict.fromkeys(kind for seconds in host_seconds.values() for kind in seconds))
    cells = [
        (shorten(host, NAME_SHOWN), *(f"{seconds[kind]:.1f}" if kind in seconds else "–" for kind in kinds))
        for host, seconds in host_seconds.items()
    ]
    return Table("host_seconds", "Seconds of the hosts", OLDER, ("host", *kinds), tuple(cells), words=0)
