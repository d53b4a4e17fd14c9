"""Describes what a study would run and need, in words: the command `plan`."""

from __future__ import annotations

from collections.abc import Mapping

from analysis.wording import DASH, format_number, format_value
from search_spaces.layer_ranges import Layers, layers_text
from search_spaces.parameters import Range
from search_spaces.resolution import short_names
from search_spaces.target_modules import modules_name
from study.config.study_config import StudyConfig
from study.hardware.machine import usable_cores
from study.hardware.targets import target_here
from study.output import aligned, plural
from study.plan.forecast import Forecast, workload_of
from study.plan.plan_text import plan_text
from study.plan.preflight import TOKENIZER, WEIGHTS, Preflight, check
from study.plan.study_plan import nodes_of, plan_study
from study.records.data_notes import data_notes
from study.records.objectives import Objective
from study.reporting.naming import short_name, told_apart
from study.search.planned_trials import planned_trials
from study.search.search_task import SearchTask
from trainables.base_model.location import name_and_place
from trainables.base_model.shape import ModelShape
from trainables.dataset.batches import planned_steps
from trainables.limits import DEFAULT_PACK
from trainables.packed.optimization import evaluation_steps

MISSING = {
    WEIGHTS: "The model's weights are not there yet: a run needs them.",
    TOKENIZER: "Without a tokenizer every row is taken to be as long as dataset.max_tokens, all of it targets.",
}


LISTED_CONFIGURATIONS = 24
SHOWN_TARGETS = 6
SPLIT_FACTS = {
    "rows": "rows", "left_out": "left out", "dropped": "dropped",
    "truncated": "truncated", "overlap": "in other splits", "tokens": "tokens",
    "target_tokens": "targets", "median_length": "median length", "max_length": "longest",
}  # fmt: skip


def describe(config: StudyConfig) -> str:
    """What would run: trials, steps, rows, model and data. Raises ConfigError with all that is wrong."""
    found = check(config, weights=False)
    counts = trial_counts(config)
    facts = {
        "study": f"{config.name} ({config.file})",
        "base model": _model(config, found),
        "trials": _trials(config, counts),
        **_middles(config),
        **_targets(config, found),
        **_warm_starts(config),
        "each trial": _training(config, found),
        "data": _data(config),
        **({"tokens": found.tokens} if found.tokens else {}),
        "measured": _measured(config, found),
        "stopping": _early_stopping(config, found),
        "objectives": ", ".join(map(_objective, config.objectives)),
        "hardware": _hardware(config),
        "kept": f"adapters: {config.adapters}; results in {config.storage}",
    }
    width = max(map(len, facts))
    lines = [f"{name:<{width}}   {text}" for name, text in facts.items()]
    notes = "\n".join(data_notes(found.statistics))
    parts = ["\n".join(lines), _splits(found), notes, _configurations(config), plan_words(config, found, counts)]
    return "\n\n".join(part for part in parts if part)


def _warm_starts(config: StudyConfig) -> Mapping[str, str]:
    if not config.search.warm_start:
        return {}
    from study.search.warm_start import earlier_studies  # not above: other plans need no Optuna

    studies = earlier_studies(config)
    told = [f"{plural(len(one.records), 'trial')} of {one.directory}" for one in studies]
    return {"warm start": f"{', '.join(told)}; which of them compare is seen when it runs"} if told else {}


def trial_counts(config: StudyConfig) -> Mapping[str, int]:
    """How many trials of each precision the search consists of."""
    return {precision: len(trials) for precision, trials in planned_trials(SearchTask.of(config)).items()}


def _model(config: StudyConfig, found: Preflight) -> str:
    size = format_value("trainable_parameters", found.parameter_count)
    four_bit = found.shape.four_bit if found.shape else None
    quantized = f", quantized already: {four_bit}" if four_bit else ""
    return f"{name_and_place(config.trial.base_model)}: {found.model_type}, {size} parameters{quantized}"


def _trials(config: StudyConfig, counts: Mapping[str, int]) -> str:
    algorithm = config.search.algorithm
    each = ", ".join(f"{count} {precision}" for precision, count in counts.items())
    seeds = ", ".join(map(str, config.seeds if algorithm == "grid" else config.seeds[:1]))
    return f"{sum(counts.values())}: {each}; algorithm {algorithm}; seed {seeds}"


def _training(config: StudyConfig, found: Preflight) -> str:
    training, rows = config.trial.training, found.statistics["train"]["rows"]
    step_rows = min(rows, training.micro_batch_size * training.gradient_accumulation_steps)
    steps = planned_steps(rows, training)
    return (
        f"{plural(steps, 'optimizer step')} of {plural(step_rows, 'row')} ({training.micro_batch_size} at a time), "
        f"{steps * step_rows / rows:.3g} times over {plural(rows, 'row')}"
    )


def _data(config: StudyConfig) -> str:
    data = config.trial.dataset
    source = data.train_file or data.source or "its usual source"
    return f"{data.name} from {source}, rows cut at {data.max_tokens} tokens"


def _measured(config: StudyConfig, found: Preflight) -> str:
    steps = planned_steps(found.statistics["train"]["rows"], config.trial.training)
    rungs = config.trial.rungs.steps(steps)
    times = plural(len(evaluation_steps(steps, config.trial.training.evaluations, rungs)), "time")
    prompts = len(config.trial.generation.prompts)
    answers = f"; {plural(prompts, 'prompt')} answered by base and tuned model" if prompts else ""
    test = ", the test split once" if found.statistics["test"]["rows"] else ", no test split"
    return f"the evaluation split {times}{test}{answers}"


def _early_stopping(config: StudyConfig, found: Preflight) -> str:
    steps = planned_steps(found.statistics["train"]["rows"], config.trial.training)
    rungs, algorithm = config.trial.rungs.steps(steps), config.early_stopping.algorithm
    if algorithm == "none":
        return "none"
    if not rungs:
        return f"{algorithm}, with no step between grace and end to stop at"
    return f"{algorithm} after step {', '.join(map(str, rungs))} of {steps}"


def _objective(objective: Objective) -> str:
    reference = format_value(objective.metric, objective.reference)
    return f"{objective.label.lower()} {objective.direction}d (reference {reference})"


def _hardware(config: StudyConfig) -> str:
    hardware = config.trial.hardware
    parts = [f"gpu {hardware.gpu}"]
    if hardware.gpu != "cpu":
        parts.append(f"cards: {'all there are' if hardware.gpus is None else hardware.gpus}")
    if hardware.memory_limit_bytes is not None:
        parts.append(f"memory limit {format_value('peak_memory_bytes', hardware.memory_limit_bytes)}")
    if hardware.base_in_host_memory != "auto":
        parts.append(f"base model in host memory: {hardware.base_in_host_memory}")
    most = hardware.max_adapters_per_gpu or (DEFAULT_PACK["cpu"] if hardware.gpu == "cpu" else None)
    together = f"at most {plural(most, 'adapter')} together" if most else "as many adapters together as fit and pay"
    return "; ".join([*parts, together])


def _splits(found: Preflight) -> str:
    shown = [name for name in SPLIT_FACTS if any(name in split for split in found.statistics.values())]
    rows = [
        [split, *(DASH if facts.get(name) is None else format_number(facts[name]) for name in shown)]
        for split, facts in found.statistics.items()
    ]
    return aligned(["split", *(SPLIT_FACTS[name] for name in shown)], rows, left=1)


def _configurations(config: StudyConfig) -> str:
    """A grid's configurations, as they are named; a search finds its own."""
    if config.search.algorithm != "grid":
        return ""
    every = config.space.grid(config.seeds)
    lines = [f"  {name}" for name in told_apart(list(map(short_name, every)), every)[:LISTED_CONFIGURATIONS]]
    more = len(every) - len(lines)
    order = "" if config.early_stopping.algorithm == "none" else ", which runs shuffled"
    return "\n".join([f"The grid{order}:", *lines, *([f"  and {more} more"] if more else [])])


def _middles(config: StudyConfig) -> Mapping[str, str]:
    """Of ranges, which are for a search, the one value that a grid takes."""
    ranges = [(one.name, one.kind) for one in config.space.parameters if isinstance(one.kind, Range)]
    if config.search.algorithm != "grid" or not ranges:
        return {}
    values = ", ".join(f"{name} {kind.midpoint():.4g}" for name, kind in ranges)
    return {"ranges": f"a grid takes the middle of each: {values}"}


def _targets(config: StudyConfig, found: Preflight) -> Mapping[str, str]:
    """What target modules mean in this model, where that is not plain from how they are written."""
    shape = found.shape
    if shape is None:
        return {}
    asked = [one for one in config.space.targets() if one[1] is not None or not set(one[0]) <= shape.linears.keys()]
    words = [_target_words(shape, modules, layers) for modules, layers in asked[:SHOWN_TARGETS]]
    more = [f"and {len(asked) - SHOWN_TARGETS} more"] if len(asked) > SHOWN_TARGETS else []
    return {"targets": "; ".join([*words, *more])} if words else {}


def _target_words(shape: ModelShape, modules: tuple[str, ...], layers: Layers) -> str:
    """`q_v[2-3]: 2 linear layers, qkv_proj`."""
    updated = shape.targets(modules, layers)
    within = "" if layers is None else f"[{layers_text(layers)}]"
    return f"{modules_name(modules)}{within}: {plural(len(updated), 'linear layer')}, {', '.join(short_names(updated))}"


def plan_words(config: StudyConfig, found: Preflight, counts: Mapping[str, int]) -> str:
    """The plan of a study in words and tables; nothing where the model's shape is not known."""
    workload, target = workload_of(config, found), target_here(config.trial.hardware)
    if workload is None:
        return ""
    plan = plan_study(config, counts, Forecast(workload, target), nodes_of(target, float(usable_cores())))
    notes = [MISSING[name] for name in found.missing]
    if config.search.algorithm != "grid":
        notes.append("A search finds its own configurations; the plan is for some that were drawn by chance.")
    return "\n\n".join(part for part in (plan_text(plan), "\n".join(notes)) if part)
