"""Makes the outcomes that trials' records are written from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

from trainables.engine.bench import Bench, comparable, device_name
from trainables.engine.residents import Resident
from trainables.measure.evaluation import Evaluation
from trainables.measure.peak_memory import memory_source
from trainables.measure.training_cost import TrainingCost
from trainables.protocol import Outcome


def complete_outcome(bench: Bench, resident: Resident, cost: TrainingCost) -> Outcome:
    """The outcome of a trial that trained to its end, and has its final evaluation."""
    final, test = resident.final, resident.test
    assert final is not None
    measurements = {
        **_progress(bench, resident),
        **_quality(final, test),
        **_cost(bench, resident, cost),
    }
    return Outcome(
        "complete", None, measurements=_known(measurements), samples=resident.samples or (), eval_rows=_rows(final),
        test_rows=_rows(test), has_adapter=True, **_identity(bench, resident, cost),
    )  # fmt: skip


def _rows(evaluation: Evaluation | None) -> dict[str, Any] | None:
    """Each row's nats and target tokens; None where they were not measured, or one of them is not finite."""
    if evaluation is None or not evaluation.finite:
        return None
    return {"nats": list(evaluation.nats), "tokens": list(evaluation.tokens)}


def stopped_outcome(bench: Bench, resident: Resident, cost: TrainingCost) -> Outcome:
    """The outcome of a trial that is stopped after its last evaluation; early stopping adds the reason."""
    assert resident.evaluation is not None
    measurements = {
        **_progress(bench, resident),
        **_quality(resident.evaluation, None),
        **_cost(bench, resident, cost),
    }
    return Outcome("stopped", measurements=_known(measurements), **_identity(bench, resident, cost))


def ended_outcome(
    bench: Bench,
    resident: Resident,
    status: Literal["infeasible", "diverged", "failed"],
    reason: str,
    error: str | None = None,
    infeasible: Mapping[str, Any] | None = None,
) -> Outcome:
    """The outcome of a trial that could not train to its end; its quality is not known."""
    measurements = _known(_progress(bench, resident))
    return Outcome(
        status, reason, error=error, infeasible=infeasible, measurements=measurements, **_identity(bench, resident)
    )


def _known(measurements: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces numbers that are not finite, such as the perplexity of a base that overflows in fp16, by None."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in measurements.items()
    }


def _progress(bench: Bench, resident: Resident) -> dict[str, Any]:
    return {
        "base_perplexity": bench.evaluation.perplexity if bench.evaluation else None,
        "base_accuracy": bench.evaluation.accuracy if bench.evaluation else None,
        "pack_peak_memory_bytes": resident.history.pack_peak_memory_bytes,
        "mean_pack_size": resident.mean_pack_size,
        "trainable_parameters": resident.member.adapter.trainable_parameters,
        "train_steps": resident.member.step,
        "train_tokens": resident.member.train_tokens,
        "train_seconds": resident.history.train_seconds,
        "wall_seconds": resident.wall_seconds,
        "restarts": resident.incarnation,
    }


def _quality(final: Evaluation, test: Evaluation | None) -> dict[str, Any]:
    return {
        "perplexity": final.perplexity,
        "eval_nats": sum(final.nats),
        "eval_tokens": sum(final.tokens),
        "accuracy": final.accuracy,
        "test_perplexity": test.perplexity if test else None,
        "test_accuracy": test.accuracy if test else None,
    }


def _cost(bench: Bench, resident: Resident, cost: TrainingCost) -> dict[str, Any]:
    epoch_tokens = sum(len(row.tokens) for row in bench.dataset.train.rows)
    training = bench.settings.training
    step_rows = training.micro_batch_size * training.gradient_accumulation_steps
    seconds = cost.seconds_per_epoch(epoch_tokens, -(-len(bench.dataset.train.rows) // step_rows))
    joules = cost.joules_per_token
    return {
        "peak_memory_bytes": cost.peak_memory_bytes,
        "peak_reserved_bytes": cost.peak_reserved_bytes,
        "peak_device_bytes": cost.peak_device_bytes,
        "train_tokens_per_second": epoch_tokens / seconds,
        "seconds_per_epoch": seconds,
        "generated_tokens_per_second": cost.generated_tokens_per_second,
        "base_generated_tokens_per_second": bench.generated_tokens_per_second,
        "energy_joules": None if joules is None else joules * resident.member.train_tokens,
    }


def _identity(bench: Bench, resident: Resident, cost: TrainingCost | None = None) -> dict[str, Any]:
    base = bench.base
    peaks = list(cost.card_peak_bytes) if cost else []
    origin = cost.origin if cost else None
    return {
        "curve": tuple(resident.history.curve),
        "base_model": {"path": base.info.path, "revision": base.info.revision, "sha256": base.info.sha256},
        "device": {
            "name": device_name(base.device),
            "compute_dtype": str(base.compute_dtype).removeprefix("torch."),
            "memory_source": memory_source(base.devices),
            **({"card_peak_memory_bytes": peaks} if len(peaks) > 1 else {}),
            **({"cost_taken_over_from": asdict(origin)} if origin else {}),
            **_offload(bench),
        },
        "dataset": {
            "fingerprint": bench.dataset.fingerprint,
            "statistics": bench.dataset.statistics,
            "special_tokens": "markup" if bench.dataset.special_tokens.markup else "text",
            "bos": bench.dataset.bos,
            "eos": bench.dataset.eos,
        },
        "comparable": comparable(bench),
    }


def _offload(bench: Bench) -> dict[str, Any]:
    """What of the training waited in host memory, and the bytes of the layers that were streamed from there.

    Nothing where all was on the device: records of earlier versions say as much.
    """
    if bench.offload.is_none:
        return {}
    streamed = sum(block.nbytes for block in bench.base.blocks.values())
    return {"offload": bench.offload.to_dict(), "streamed_bytes": streamed}
