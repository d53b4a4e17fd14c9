"""The section of predictions: which configurations of the grid fit which card, by the memory model alone."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.wording import format_value
from search_spaces.trial_config import TARGET_SETS, TrialConfig
from study.hardware.calibration import Calibration
from study.hardware.gpu_catalogue import GpuCard, find_gpu
from study.hardware.targets import Target
from study.plan.fitting import Fit, fit
from study.plan.workload import Workload
from study.records.units import GIB
from tests.benchmarks.results_page.markdown import markdown_table
from trainables.base_model.shape import ModelShape
from trainables.memory.prediction import DEFAULT_CONSTANTS
from trainables.settings import TrainingSettings

SHAPES = {
    "Llama-3-8B": ModelShape(4096, 14336, 32, 32, 8, 128, 128256, False, 65 * 4096),
    "Llama-3.2-3B": ModelShape(3072, 8192, 28, 24, 8, 128, 128256, True, 57 * 3072),
    "Llama-3.2-1B": ModelShape(2048, 8192, 16, 32, 8, 64, 128256, True, 33 * 2048),
}
CARDS = ("t4", "v100", "l4", "rtx4090", "a100-40", "h100")
TOKENS, TARGET_SHARE = 512, 0.25  # of a row: PubMedQA's are as long, and a quarter of one is target
GRID = tuple((p, rank, targets) for p in ("fp16", "nf4") for rank in (8, 64) for targets in ("q_v", "all_linear"))
PREDICTED_WORDS = f"""\
The peak of training alone, one row of {TOKENS} tokens, a quarter of them targets, checkpointing, on one card, not
calibrated. Where it only fits with a part in host memory, the peak is that of what is on the card. Out of memory:
training, or a moment of generating, does not fit beside the allocator's fragments and CUDA's context; in brackets what
a card must have. For several cards of one machine, or rows of your own: `python -m study plan
STUDY.yaml --gpu NAME --gpus N`."""


def prediction_section() -> str:
    """Which configurations of the grid fit which card, by the memory model alone: every column is a prediction."""
    cards = [find_gpu(name) for name in CARDS]
    headings = ("configuration", *(f"{card.name}, {card.memory_bytes / GIB:.2f} GiB" for card in cards))
    tables = [
        f"### {name}\n\n{markdown_table(headings, [_fit_row(shape, cards, *one) for one in GRID])}"
        for name, shape in SHAPES.items()
    ]
    return "\n".join([
        "## Predicted: the paper grid on cards of the catalogue\n",
        f"{PREDICTED_WORDS}\n",
        *tables,
    ])  # fmt: skip


def _fit_row(shape: ModelShape, cards: Sequence[GpuCard], precision: str, rank: int, targets: str) -> tuple[str, ...]:
    fits = (predicted_fit(shape, card, precision, rank, targets) for card in cards)
    return (f"{precision}, rank {rank}, {targets}", *map(_fit_words, fits))


def predicted_fit(shape: ModelShape, card: GpuCard, precision: str, rank: int, targets: str) -> Fit:
    """Whether a configuration fits one such card, and what it takes there."""
    config = TrialConfig(precision, rank, 2 * rank, 0.05, TARGET_SETS[targets], 2e-4)
    lengths = {"rows": 1, "tokens": TOKENS, "target_tokens": int(TOKENS * TARGET_SHARE), "max_length": TOKENS}
    workload = Workload.of(shape, TrainingSettings(), {"train": lengths, "eval": lengths})
    calibration = Calibration(DEFAULT_CONSTANTS["cuda"])
    return fit(config, workload, Target(card, card.memory_bytes, 1, 1, calibration))


def _fit_words(found: Fit) -> str:
    asked = format_value("peak_memory_bytes", found.predictions[0].peak_memory_bytes)
    if not found.fits:
        return f"**out of memory** ({format_value('peak_memory_bytes', found.device_bytes)})"
    waits = found.setting.offload.words
    return f"{asked}, {waits} in host memory" if waits else asked
