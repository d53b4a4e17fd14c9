"""A small engine for tests: a tiny model, a few rows, trials that learn quickly, and what outcomes are made with."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import torch

from search_spaces.trial_config import TARGET_SETS, TrialConfig
from tests.support.lora_cases import random_rows
from tests.support.small_models import tiny_llama
from trainables.base_model.files import BaseModelInfo
from trainables.base_model.load import BaseModel
from trainables.base_model.shape import ModelShape
from trainables.dataset.prepared import PreparedDataset
from trainables.dataset.rows import Row, Split
from trainables.engine.bench import Bench
from trainables.engine.engine import Engine
from trainables.protocol import JoinRequest, Outcome
from trainables.settings import (
    BaseModelSettings,
    DatasetSettings,
    GenerationSettings,
    HardwareSettings,
    RungSettings,
    TrainingSettings,
    TrialSettings,
)

SAME = 1e-3  # relative: sums in another order, fp32
TRAINING = TrainingSettings(
    max_steps=12,
    epochs=10,
    micro_batch_size=2,
    gradient_accumulation_steps=2,
    gradient_checkpointing=False,
    evaluations=2,
)
BENCH_ROWS = tuple(random_rows(10))
INFO = BaseModelInfo("tiny", None, "0" * 64, ModelShape(32, 64, 2, 4, 2, 8, 97, False, 5 * 32), 128)


def letter_rows(count: int, seed: int) -> Split:
    """Rows of three letters, of unlike length, whose next token can be learned."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        tokens = tuple(draw.choice((3, 5, 7)) for _ in range(draw.randrange(6, 24)))
        made.append(Row(tokens, draw.randrange(2, 5), None, str(number)))
    return Split("train", tuple(made), 0, 0)


class Letters:
    """A tokenizer that writes each token as one letter."""

    bos_token_id, eos_token_id = None, 90

    def decode(self, tokens: list[int], **options: object) -> str:
        return "".join(chr(33 + token) for token in tokens if token != self.eos_token_id)


def make_engine(
    most: int | None = None,
    rungs: RungSettings = RungSettings(),  # noqa: B008
    generation: GenerationSettings = GenerationSettings(),  # noqa: B008
    training: TrainingSettings = TRAINING,
    **hooks: Any,
) -> Engine:
    """An engine on the CPU; `most` adapters train together, `hooks` are its own."""
    hardware = HardwareSettings("cpu", None, None, most)
    settings = TrialSettings(
        BaseModelSettings("tiny"), DatasetSettings("mine"), training, generation, hardware=hardware, rungs=rungs
    )
    base = BaseModel(tiny_llama(), Letters(), INFO, "fp32", torch.float32, torch.device("cpu"))
    dataset = PreparedDataset(letter_rows(20, 1), letter_rows(6, 2), letter_rows(5, 3), "print", (), {})
    return Engine(settings, base, dataset, **hooks)


def config(rank: int = 4, targets: str = "q_v", rate: float = 2e-2, seed: int = 0, dropout: float = 0.1) -> TrialConfig:
    """A configuration that learns quickly."""
    return TrialConfig("fp32", rank, 2 * rank, dropout, TARGET_SETS[targets], rate, seed)


MIXED = {
    "a": config(),
    "b": config(8, "all_linear", rate=5e-3),
    "c": config(2, rate=1e-2, seed=1),
    "d": config(8, dropout=0.0),
}


def join(engine: Engine, configs: dict[str, TrialConfig], incarnation: int = 0, **more: Any) -> None:
    """Has trials join; `more` is what their requests hold beside."""
    for name, one in configs.items():
        engine.join(JoinRequest(name, incarnation, one, **more))


def run(engine: Engine, most_units: int = 2000) -> dict[str, Outcome]:
    """Works until all residents have ended, each at once told to continue; their outcomes by trial id."""
    for _ in range(most_units):
        if not engine.work() and all(one.stage == "ended" for one in engine.residents.values()):
            break
        for one in engine.residents.values():
            one.awaiting_since = None  # its trial continues at once
    return {name: one.outcome for name, one in engine.residents.items() if one.outcome}


def perplexities(outcomes: dict[str, Outcome]) -> dict[str, float]:
    """The final perplexities by trial id."""
    return {name: outcome.measurements["perplexity"] for name, outcome in outcomes.items()}


def a_bench(**changes: Any) -> Bench:
    """A bench over a base that was never loaded: outcomes only read what is known of it."""
    training = TrainingSettings(micro_batch_size=2, gradient_accumulation_steps=2)
    settings = TrialSettings(BaseModelSettings("some/model"), DatasetSettings("mine", max_tokens=64), training)
    info = SimpleNamespace(path="some/model", revision="abc", sha256="0123")
    base = SimpleNamespace(
        info=info, device=torch.device("cpu"), devices=(torch.device("cpu"),), compute_dtype=torch.bfloat16
    )
    splits = [Split(name, BENCH_ROWS, dropped=0, truncated=0) for name in ("train", "eval", "test")]
    dataset = PreparedDataset(*splits, "fingerprint", (), {"train": {"rows": 10, "min_length": None}})
    return Bench(**{"settings": settings, "base": base, "dataset": dataset, **changes})  # type: ignore[arg-type]
