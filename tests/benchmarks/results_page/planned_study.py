"""The section of a planned study: Llama-3-8B on one T4 in 16 bits too, as `plan` words it."""

from __future__ import annotations

from dataclasses import replace

from study.config.study_config import load_study
from study.hardware.calibration import Calibration
from study.hardware.gpu_catalogue import find_gpu
from study.hardware.targets import Target, gpu_target
from study.plan.description import trial_counts
from study.plan.forecast import Forecast, workload_of
from study.plan.plan_text import plan_text
from study.plan.preflight import Preflight
from study.plan.study_plan import nodes_of, plan_study
from tests.benchmarks.results_page.predictions import SHAPES, TARGET_SHARE, TOKENS
from tests.support.places import ROOT
from trainables.memory.prediction import DEFAULT_CONSTANTS
from trainables.protocol import ENGINE_VERSION

STUDY = "study/studies/pubmedqa_one_t4.yaml"
PARAMETERS = 8_030_261_248
CORES = 4.0
PLANNED_WORDS = f"""\
What `python -m study plan {STUDY}` says with every row of {TOKENS} tokens, a quarter of them targets, not calibrated,
and with as much host memory as a rented machine with a T4 usually has."""


def planned_section() -> str:
    """The plan's own words, without what they say of this machine's calibration: all of it is predicted."""
    _, words = planned_text().split("\n\n", 1)
    return f"## Predicted: Llama-3-8B in 16 bits and in NF4 on one T4\n\n{PLANNED_WORDS}\n\n```text\n{words}\n```\n"


def planned_text() -> str:
    """The whole plan of the study on one T4 of the catalogue."""
    config, target = load_study(ROOT / STUDY), one_t4()
    workload = workload_of(config, _rows(config.trial.dataset.train_examples or 0, config.trial.dataset.eval_examples))
    assert workload is not None
    plan = plan_study(config, trial_counts(config), Forecast(workload, target), nodes_of(target, CORES))
    return plan_text(plan)


def one_t4() -> Target:
    """One T4, by what the catalogue says of it and its machine, whatever was learned of such a card here."""
    return replace(gpu_target(find_gpu("t4"), 1, ENGINE_VERSION), calibration=Calibration(DEFAULT_CONSTANTS["cuda"]))


def _rows(train: int, evaluation: int | None) -> Preflight:
    def lengths(rows: int) -> dict[str, int]:
        targets = int(rows * TOKENS * TARGET_SHARE)
        return {"rows": rows, "tokens": rows * TOKENS, "target_tokens": targets, "max_length": TOKENS}

    statistics = {"train": lengths(train), "eval": lengths(evaluation or 0)}
    return Preflight(PARAMETERS, "llama", statistics, SHAPES["Llama-3-8B"])
