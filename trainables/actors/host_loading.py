"""Loads what a host needs for its engine: libraries, base model, data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trainables.memory.offload import RESIDENT, Offload
from trainables.settings import TrialSettings
from trainables.timeline import timeline


@dataclass(frozen=True)
class HostSettings:
    """What a host is made for."""

    trial: TrialSettings
    name: str  # for people: node, cards, precision
    precision: str
    device: str  # "cpu" or "cuda"
    threads: int  # of a CPU host; Ray gives an actor without CPUs just one
    cards: int = 1  # that hold the base model together, where the device is "cuda"
    keep_adapters: bool = True  # whether finished adapters are handed to the keeper
    waits: bool = False  # whether it touches its device only once a trial joins
    study_directory: str = ""  # which measured costs are kept as measured in; empty: none is kept or taken over
    offload: Offload = RESIDENT  # what waits in host memory
    environment: Mapping[str, str] = field(default_factory=dict)  # of its process, set before libraries read it


def import_ahead() -> None:
    """Imports what takes longest and does not touch a card."""
    from trainables.base_model.lean_imports import import_libraries

    import_libraries()


def make_engine(
    settings: HostSettings,
    keep_adapter: Any = None,
    between: Callable[[], None] = lambda: None,
    note_alone: Any = lambda trial_id, begins: None,
) -> Any:
    """Loads the base model and the data, and makes the engine over them."""
    with timeline.stage("imports"):
        import torch

        from trainables.base_model.lean_imports import import_quantization

        import_quantization()
        from trainables.base_model.load import load_base_model
        from trainables.dataset.prepared import prepare_dataset
        from trainables.engine.engine import Engine
        from trainables.engine.kernels_ahead import kernels_beside
        from trainables.engine.release import settle
        from trainables.measure.context_memory import open_contexts

    device = torch.device(settings.device)
    if device.type == "cpu":
        torch.set_num_threads(settings.threads)
    else:
        with timeline.stage("device context"):
            open_contexts([torch.device("cuda", number) for number in range(settings.cards)])
        cap_memory(settings.trial.hardware.memory_limit_bytes, settings.cards)
    forced = settings.trial.hardware.force_bf16
    cards = cards_by_module(settings) if settings.cards > 1 else None
    model = settings.trial.base_model
    with kernels_beside(model, settings.precision, device):
        with timeline.stage("base model"):
            base = load_base_model(
                model, settings.precision, device, force_bf16=forced, cards=cards, offload=settings.offload
            )
        with timeline.stage("data"):
            dataset = prepare_dataset(settings.trial.dataset, base.tokenizer)
    engine = Engine(
        settings.trial, base, dataset, keep_adapter, between, note_alone, settings.study_directory, settings.offload
    )
    settle()
    return engine


def cards_by_module(settings: HostSettings) -> dict[str, int]:
    """The number of the card that each module of the base model is put on, by the module's name."""
    import torch

    from trainables.base_model.files import inspect
    from trainables.base_model.load import compute_dtype
    from trainables.base_model.tokenizer import load_tokenizer
    from trainables.dataset.prepared import prepare_dataset
    from trainables.memory.card_split import cards_of_modules
    from trainables.memory.setting import PRECISION_OF_DTYPE

    trial = settings.trial
    rows = prepare_dataset(trial.dataset, load_tokenizer(trial.base_model), answers=False).train.rows
    dtype = compute_dtype(settings.precision, torch.device(settings.device))
    compute = PRECISION_OF_DTYPE[str(dtype).removeprefix("torch.")]
    shape = inspect(trial.base_model).shape
    longest = max(len(row.tokens) for row in rows)
    return cards_of_modules(shape, trial, settings.precision, compute, longest, settings.cards)


def cap_memory(limit_bytes: int | None, cards: int) -> None:
    """Limits what this process may take of each of its cards, so that they stand for smaller ones."""
    import torch

    if limit_bytes is not None:
        for card in range(cards):
            total = torch.cuda.get_device_properties(card).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, limit_bytes / total), card)
