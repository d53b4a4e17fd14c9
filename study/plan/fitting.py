"""Which configurations fit a card, alone or over several, and what would make the others fit. (pure)"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from search_spaces.trial_config import TrialConfig
from study.hardware.calibration import Calibration
from study.hardware.gpu_catalogue import GpuCard, catalogue, compute_precision, precision_refusal
from study.records.units import format_bytes
from trainables.base_model.shape import ModelShape
from trainables.memory.card_split import cards_needed, predict_split
from trainables.memory.prediction import MemoryPrediction, adapter_bytes, allocatable, room
from trainables.memory.setting import AdapterLoad, Attention, MemorySetting
from trainables.settings import TrainingSettings

FEWEST_TOKENS, LOWEST_RANK = 128, 4  # to which a remedy shortens rows, and lowers the rank
MOST_CARDS = 8  # of one node, that a remedy asks for
FP16_ON_A_CPU = (
    "precision fp16 needs a GPU; on a CPU it is 8 to 12 times slower. Choose bf16 or fp32, or nf4 (which then computes "
    "in one of them)."
)


@dataclass(frozen=True)
class Workload:
    """What all trials of a study share: the model, how it trains, and the lengths of the data's rows.

    `longest` is the longest training row's tokens, `train_tokens` and `eval_tokens` are sums over the splits (what is
    measured on the way: the evaluation split), `target_share` is the part of all tokens that are targets.
    """

    shape: ModelShape
    training: TrainingSettings
    longest: int
    train_rows: int
    train_tokens: int
    eval_tokens: int
    target_share: float
    double_quantization: bool = True
    force_bf16: bool = False

    @classmethod
    def of(
        cls,
        shape: ModelShape,
        training: TrainingSettings,
        statistics: Mapping[str, Mapping[str, Any]],
        double_quantization: bool = True,
        force_bf16: bool = False,
    ) -> Workload:
        """From the statistics of a prepared dataset, by split."""
        train, evaluation = statistics["train"], statistics["eval"]
        return cls(
            shape=shape,
            training=training,
            longest=train["max_length"],
            train_rows=train["rows"],
            train_tokens=train["tokens"],
            eval_tokens=evaluation["tokens"],
            target_share=train["target_tokens"] / train["tokens"],
            double_quantization=double_quantization,
            force_bf16=force_bf16,
        )


@dataclass(frozen=True)
class Target:
    """The hardware that is planned for: `count` equal cards, `per_node` of them in one machine; or CPUs (`card` None).

    `memory_bytes` is a card's, or the machine's; `limit_bytes` caps what the host may hold of it, beside CUDA's
    context. A host can spread its base over the cards of its machine.
    """

    card: GpuCard | None
    memory_bytes: int
    count: int
    per_node: int
    calibration: Calibration
    limit_bytes: int | None = None
    cpu_computes_bf16: bool = False

    @property
    def cards_together(self) -> int:
        """How many cards a base may be spread over: those of one machine, of which the study may take `count`."""
        return 1 if self.card is None else min(self.per_node, self.count)

    @property
    def capacity_bytes(self) -> int:
        """What the models may count on, CUDA's context included."""
        if self.limit_bytes is None:
            return self.memory_bytes
        return min(self.memory_bytes, self.limit_bytes + self.calibration.constants.context_bytes)


@dataclass(frozen=True)
class Fit:
    """Whether and how one configuration fits.

    `predictions` are those of training alone, one for each of the `cards` that hold the base together; where it fits
    nowhere, of one card and `cards` is None. `adapter_bytes` is what it adds to a card, in company too, at most the
    room. `refusal` says why the card should not compute in the precision at all.
    """

    config: TrialConfig
    setting: MemorySetting
    load: AdapterLoad
    predictions: tuple[MemoryPrediction, ...]
    cards: int | None
    adapter_bytes: int
    room_bytes: int
    capacity_bytes: int  # the highest allocator's peak that a card can hold
    refusal: str | None = None

    @property
    def fits(self) -> bool:
        """Whether it may be admitted."""
        return self.cards is not None and self.refusal is None

    @property
    def peak_memory_bytes(self) -> int:
        """Of training alone, as it is measured: the sum of the cards' own peaks."""
        return sum(self.components.values())

    @property
    def components(self) -> dict[str, int]:
        """Its bytes by name, summed over the cards."""
        total: Counter[str] = Counter()
        for one in self.predictions:
            total.update(one.components)
        return dict(total)

    @property
    def largest(self) -> MemoryPrediction:
        """The prediction of the card that holds most."""
        return max(self.predictions, key=lambda one: one.needed_bytes)


def memory_setting(precision: str, workload: Workload, target: Target) -> MemorySetting:
    """How a base in that precision is kept and run on the target."""
    card = target.card
    if card is not None:
        compute = compute_precision(precision, card)
    else:
        compute = ("bf16" if target.cpu_computes_bf16 else "fp32") if precision in ("nf4", "bf16") else precision
    return MemorySetting(
        precision=precision,
        compute_precision=compute,
        double_quantization=workload.double_quantization,
        gradient_checkpointing=workload.training.gradient_checkpointing,
        device="cuda" if card else "cpu",
        attention=_attention(workload, card) if card else "cpu",
    )


def load_of(config: TrialConfig, workload: Workload) -> AdapterLoad:
    """The adapter with the largest micro-batch that the data have."""
    rows = workload.training.micro_batch_size
    tokens = rows * workload.longest
    return AdapterLoad.of(config, rows, workload.longest, max(1, min(tokens, round(tokens * workload.target_share))))


def fit(config: TrialConfig, workload: Workload, target: Target) -> Fit:
    """Predicts one configuration alone on the target, over as many cards of one node as it takes."""
    setting = memory_setting(config.precision, workload, target)
    load = load_of(config, workload)
    shape, constants = workload.shape, target.calibration.constants
    capacity = target.capacity_bytes
    cards = cards_needed(shape, setting, load, capacity, target.cards_together, constants)
    own, left = adapter_bytes(shape, setting, load, constants), room(shape, setting, capacity, constants)
    return Fit(
        config=config,
        setting=setting,
        load=load,
        predictions=predict_split(shape, setting, load, cards or 1, constants),
        cards=cards,
        adapter_bytes=min(own, left) if cards == 1 else own,  # what fits alone has the whole room
        room_bytes=left,
        capacity_bytes=allocatable(capacity, constants),
        refusal=_refusal(config.precision, workload, target),
    )


def _refusal(precision: str, workload: Workload, target: Target) -> str | None:
    if target.card is not None:
        return precision_refusal(precision, target.card, workload.force_bf16)
    return FP16_ON_A_CPU if precision == "fp16" else None


def infeasible_facts(fit: Fit) -> dict[str, Any]:
    """What a record says of a configuration that was predicted not to fit, JSON-ready: the moment that needs most,
    and its components, which sum to the bytes asked for."""
    moment, components = fit.largest.largest_moment
    return {
        "phase": moment,
        "requested_bytes": fit.largest.needed_bytes,
        "available_bytes": fit.capacity_bytes,
        "source": "predicted",
        "components": dict(components),
    }


def remedies(config: TrialConfig, workload: Workload, target: Target) -> tuple[str, ...]:
    """What would make a configuration fit, each by itself; where nothing does, all together, or the smallest card."""
    if fit(config, workload, target).fits:
        return ()
    alone = []
    for kind in _changes(config, workload):
        fitting = (text for text, one, load in kind if fit(one, load, target).fits)
        alone += [text for text in (next(fitting, None),) if text]
    over_more = fit(config, workload, replace(target, per_node=MOST_CARDS, count=MOST_CARDS))
    if target.card is not None and over_more.fits:
        alone.append(f"{over_more.cards} such cards in one node")
    if alone:
        return tuple(alone)
    return tuple(_together(config, workload, target)) or tuple(_larger_card(config, workload, target))


def _changes(config: TrialConfig, workload: Workload) -> Iterator[Iterator[tuple[str, TrialConfig, Workload]]]:
    """Ways to take less, by kind; within a kind the smallest change comes first."""
    training = workload.training

    def with_training(text: str, **changes: Any) -> tuple[str, TrialConfig, Workload]:
        return f"training.{text}", config, replace(workload, training=replace(training, **changes))

    rows = range(training.micro_batch_size - 1, 0, -1)
    yield (with_training(f"micro_batch_size: {count}", micro_batch_size=count) for count in rows)
    if not training.gradient_checkpointing:
        yield iter([with_training("gradient_checkpointing: true", gradient_checkpointing=True)])
    tokens = _halves(workload.longest, FEWEST_TOKENS)
    yield ((f"dataset.max_tokens: {count}", config, replace(workload, longest=count)) for count in tokens)
    if config.precision != "nf4":
        yield iter([("precision: nf4", replace(config, precision="nf4"), workload)])
    yield ((f"rank: {rank}", replace(config, rank=rank), workload) for rank in _halves(config.rank, LOWEST_RANK))


def _halves(start: int, lowest: int) -> Iterator[int]:
    while (start := start // 2) >= lowest:
        yield start


def _together(config: TrialConfig, workload: Workload, target: Target) -> Iterator[str]:
    """The least of everything at once."""
    training = replace(workload.training, micro_batch_size=1, gradient_checkpointing=True)
    least = replace(workload, training=training, longest=min(workload.longest, FEWEST_TOKENS))
    if fit(replace(config, precision="nf4"), least, target).fits:
        yield f"nf4, micro_batch_size 1, checkpointing, and max_tokens {least.longest}, all together"


def _larger_card(config: TrialConfig, workload: Workload, target: Target) -> Iterator[str]:
    for card in sorted(catalogue().values(), key=lambda card: card.memory_bytes):
        larger = replace(target, card=card, memory_bytes=card.memory_bytes, limit_bytes=None, per_node=1)
        if fit(config, workload, larger).fits:
            yield f"a card of {format_bytes(card.memory_bytes)} ({card.key})"
            return


def _attention(workload: Workload, card: GpuCard) -> Attention:
    """Which kernel attends. FlashAttention 2 needs compute capability 8.0; below it only the fused decoder, which
    repeats keys and values for all heads, is served by the memory-efficient one."""
    if card.has_bf16:
        return "flash"
    shared = workload.shape.key_value_heads < workload.shape.attention_heads
    return "math" if shared and not workload.shape.is_plain_llama else "memory_efficient"
