"""Formats a study's plan as text and tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from study.output import plural
from study.plan.offloading.words import hiding, host_memory, refusal_words, times, waiting
from study.plan.study_plan import PlannedPhase, PlanRow, StudyPlan
from study.records.units import GIB, format_bytes
from trainables.memory.moments import basis_words

COMPONENTS = {  # what is shown together
    "base": ("base_linears", "embedding_and_head", "norms", "stream_buffers"),
    "adapter": ("adapter_weights", "gradients", "optimizer_state", "optimizer_staging"),
    "activations": ("layer_inputs", "activations", "targets"),
    "workspace": ("dequantization", "loss_chunk", "key_value_cache", "libraries"),
}
HEADER = ("precision", "rank", "targets", "trials", "peak", *COMPONENTS, "needs", "fits", "share a card", "time/epoch")


def plan_text(plan: StudyPlan) -> str:
    """The whole plan: hardware, each footprint's peak by component, phases, time and price, and what does not fit."""
    lines = [*_hardware(plan), "", *_table([HEADER, *(_row(row, plan) for row in plan.rows)]), ""]
    lines += ["Peaks and components in GiB, of training alone; over several cards in sum.", *_needs(plan)]
    lines += [*_host_memory(plan), ""]
    lines += [line for planned in plan.phases for line in _phase(planned, plan)]
    lines += [_total(plan)]
    for remedies in dict.fromkeys(_would_help(row) for row in plan.rows if not row.fit.fits):
        lines += [
            "",
            *(_refused(row, plan) for row in plan.rows if not row.fit.fits and _would_help(row) == remedies),
            remedies,
        ]
    return "\n".join(lines)


def _hardware(plan: StudyPlan) -> list[str]:
    target, training = plan.target, plan.workload.training
    if target.card is None:
        machine = f"{plural(target.count, 'CPU host')}, {format_bytes(target.memory_bytes)} each"
    else:
        machine = f"{target.count} x {target.card.summary}"
    limit = f", limited to {format_bytes(target.limit_bytes)}" if target.limit_bytes else ""
    known = target.calibration
    kind = "processor" if target.card is None else "card"
    basis = f"calibrated by {known.footprints} footprints measured on such a {kind}" if plan.calibrated else (
        f"not calibrated: no footprint was measured on such a {kind} yet"
    )  # fmt: skip
    checkpointing = "with" if training.gradient_checkpointing else "without"
    return [
        f"{machine}{limit}. Memory model: {basis}.",
        f"Memory of layers: {basis_words(plan.workload.shape)}.",
        f"Micro-batches of {plural(training.micro_batch_size, 'row')} of up to "
        f"{plan.workload.longest} tokens, {checkpointing} activation checkpointing.",
    ]


def _host_memory(plan: StudyPlan) -> list[str]:
    """What the words of the table mean, where something waits in host memory, or could not for want of it."""
    if not any(not row.fit.offload.is_none or row.fit.lacking for row in plan.rows):
        return []
    there = host_memory(plan.target)
    streams = any(row.fit.offload.layers for row in plan.rows if row.fit.fits)
    price = ", its bytes there, and its price in the time of an epoch alone" if plan.target.card else ", and its bytes"
    words = [
        f"`with`: what waits in host memory{price}.",
        f"Of host memory {there}." if there else "",
        "A generated token takes one transfer of all streamed layers." if streams else "",
    ]
    return [" ".join(filter(None, words))]


def _needs(plan: StudyPlan) -> list[str]:
    if plan.target.card is None:
        return []
    context = format_bytes(plan.target.calibration.constants.context_bytes)
    return [
        "`needs` is what the fullest card must have, and is compared with its memory: the peak of training or of "
        f"generation, the allocator's fragments, and CUDA's context of {context}."
    ]


def _row(row: PlanRow, plan: StudyPlan) -> tuple[str, ...]:
    one, components = row.fit, row.fit.components
    parts = [sum(components.get(name, 0) for name in names) / GIB for names in COMPONENTS.values()]
    if one.refusal:
        fits = "refused"
    elif one.cards is None:
        fits = "no"
    else:
        fits = "yes" if one.cards == 1 else f"on {one.cards} cards"
    if one.fits and not one.offload.is_none:
        where = f"with {waiting(one.offload, plan.workload.shape.layers)}, {format_bytes(one.host_bytes)}"
        fits = ", ".join(filter(None, (where, times(row.price))))
    share = _share(row, plan)
    return (
        one.config.precision, str(one.config.rank), _targets(row, plan), str(row.trials),
        f"{one.peak_memory_bytes / GIB:.2f}", *(f"{part:.2f}" for part in parts),
        f"{one.device_bytes / GIB:.2f}", fits, share, duration(row.seconds_per_epoch),
    )  # fmt: skip


def _targets(row: PlanRow, plan: StudyPlan) -> str:
    """The target modules, and whether with dropout where the study has both: it keeps a mask, so it is a footprint."""
    both = len({one.fit.config.lora_dropout > 0 for one in plan.rows}) == 2
    return row.fit.config.target_set + (" + dropout" if both and row.fit.config.lora_dropout > 0 else "")


def _share(row: PlanRow, plan: StudyPlan) -> str:
    phases = [
        p.phase
        for p in plan.phases
        if (p.phase.precision, p.phase.cards, p.phase.offload)
        == (row.fit.config.precision, row.fit.cards, row.fit.offload)
    ]
    if not row.fit.fits or not phases:
        return "-"
    if row.fit.cards != 1:
        return "1"
    phase = phases[-1]
    asked = phase.resources_for(row.fit.adapter_bytes)[phase.kind]
    return str(int(phase.device_amount / asked))  # shares are rounded down


def _phase(planned: PlannedPhase, plan: StudyPlan) -> list[str]:
    phase = planned.phase
    if not planned.waves:
        return [f"{phase.precision}: {plural(phase.trials, 'trial')}; nothing that was drawn of it fits."]
    if plan.target.card is None:
        where = plural(planned.cards, "host")
    elif phase.cards > 1:
        where = f"{planned.cards} cards, {phase.cards} to a base model"
    else:
        where = plural(planned.cards, "card")
    waves = plural(planned.waves, "wave")
    time = f", about {duration(planned.seconds)}" if planned.seconds is not None else ""
    trials = plural(phase.trials, "trial")
    lines = [f"{phase.precision}: {trials}, {planned.at_once} at a time on {where}, {waves}{time}."]
    return lines if phase.offload.is_none else [*lines, f"  {_waiting(planned, plan)}."]


def _waiting(planned: PlannedPhase, plan: StudyPlan) -> str:
    """What waits of a phase's hosts, whether a step waits for it, and why it was chosen."""
    away, time = planned.phase.offload, planned.full_pass
    words = f"In host memory: {waiting(away, plan.workload.shape.layers)}, {format_bytes(planned.host_bytes)} a card"
    hidden = f"; {hiding(time, planned.pack)}" if time and away.layers and plan.target.card else ""
    if planned.gain:
        return f"{words}{hidden}; with larger passes {planned.gain:.1f} times as fast as with the least that must"
    asked = plan.workload.base_in_host_memory == "always"
    return f"{words}{hidden}; {'as the study asks' if asked else 'the least with which all of them fit'}"


def _total(plan: StudyPlan) -> str:
    if any(row.fit.refusal for row in plan.rows):
        return "The study does not start here, since a precision is refused."
    if not any(row.fit.fits for row in plan.rows):
        return "Nothing of this study fits here."
    if plan.seconds is None:
        return "Time and price: not known for this hardware, whose rates the catalogue does not have."
    assert plan.target.card is not None
    text = f"In all about {duration(plan.seconds)}, {plan.gpu_hours or 0:.2f} GPU-hours"
    if plan.price is None or plan.price_per_hour is None:
        return f"{text}; give hardware.price_per_hour to know the price."
    card = plan.target.card
    listed = plan.price_per_hour == card.price_per_hour
    source = f"{card.price_source}, {card.price_as_of}; hardware.price_per_hour overrides it" if listed else "as given"
    return f"{text}, {plan.price:.2f} USD at {plan.price_per_hour:.3f} USD an hour and card ({source})."


def _refused(row: PlanRow, plan: StudyPlan) -> str:
    one = row.fit
    name = f"{one.config.precision}, rank {one.config.rank}, {one.config.target_set}"
    if one.refusal:
        return f"{name} is refused."
    return f"{name} {refusal_words(one, plan.workload, plan.target)}."


def _would_help(row: PlanRow) -> str:
    if row.fit.refusal:
        return f"  {row.fit.refusal[0].upper()}{row.fit.refusal[1:]}"
    return f"  What would make it fit: {'; or '.join(row.remedies) or 'nothing that is known here'}."


def duration(seconds: float | None) -> str:
    """Seconds as people say them; `-` for what is not known."""
    if seconds is None:
        return "-"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
