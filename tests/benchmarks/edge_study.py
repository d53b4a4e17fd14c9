"""Trains configurations at the edge of a T4's memory, on rows of mixed length: none that is admitted runs out.

    python -m tests.benchmarks.edge_study --json OUT              24 admitted and 12 refused within 3 % of the edge
    python -m tests.benchmarks.edge_study --probe --json OUT      how much room they need beside what they allocate
    python -m tests.benchmarks.edge_study --long-rows --json OUT  single rows of 8k to 40k tokens, parts in host memory

On a card: Llama-3-8B's shapes in NF4 with random weights, the allocator capped at 14.56 GiB less CUDA's context, its
segments expandable as hosts make them. Each configuration is measured alone as a host measures it, then trained on
batches as they come; where it runs out it is tried once more, as a host does. Those that the plan refuses are tried
too: what would have run was refused for nothing. `--probe` looks for the least cap under which a configuration runs, as
a share of what it allocates beside frozen weights. `--kind t4` computes and attends as a T4 does. `--shape tiny
--device cpu` goes through everything on a processor, to find faults.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

GIB = 2**30
ADMITTED, REFUSED, WITHIN = 24, 12, 0.03
PROBED, PROBED_FROM, PROBED_TO = 40, 0.85, 1.0  # of the card, as predicted
LADDER = (0.01, 0.03, 0.045, 0.06, 0.08, 0.10, 0.13, 0.2, 0.4)  # caps over what is allocated, as shares of what is
EXPANDABLE = "expandable_segments:True"  # not frozen weights


class Edge:
    """A resident base model, the card that it is on, and the cases near that card's memory."""

    def __init__(self, options: argparse.Namespace) -> None:
        import torch

        from tests.benchmarks.support.capped_training import load_base
        from tests.benchmarks.support.edge_cases import small_card
        from trainables.memory.offload import RESIDENT
        from trainables.precision import compute_precision

        self.target = small_card(round(options.card * GIB), options.kind)
        device = torch.device(options.device)
        compute = compute_precision("nf4", self.target.processor) if device.type == "cuda" else "fp32"
        self.shape = _shape("llama-3-8b" if options.shape == "tiny" else options.shape)
        self.base = load_base(options.shape, device, compute)
        self._options, self._held = (options.shape, device, compute), RESIDENT
        self._as_t4 = options.kind == "t4" and self.base.on_card

    @property
    def cap_bytes(self) -> int:
        """What the process may hold of the card."""
        return self.target.memory_bytes - self.target.calibration.constants.context_bytes

    def between(self, lowest: float, highest: float) -> list[Any]:
        """All cases with their predicted fit whose need is between these parts of the card."""
        from tests.benchmarks.support.edge_cases import between

        return between(self.shape, self.target, lowest * self.target.memory_bytes, highest * self.target.memory_bytes)

    def hold(self, offload: Any) -> None:
        """Makes the base model anew where other parts of it are to wait in host memory."""
        from tests.benchmarks.support.capped_training import load_base

        if offload != self._held:
            del self.base
            self.base, self._held = load_base(*self._options, offload), offload

    def train(self, case: Any, cap_bytes: int | None, typical: int = 2) -> dict[str, Any]:
        """Trains a case under a cap."""
        from tests.benchmarks.support.capped_training import train_capped

        with _memory_efficient() if self._as_t4 else nullcontext():
            return train_capped(self.base, case, cap_bytes, typical)


def edge_rows(edge: Edge) -> Iterator[dict[str, Any]]:
    """Each configuration near the edge, trained under the card's cap, the refused ones too."""
    from tests.benchmarks.support.edge_cases import spread

    near = edge.between(1 - WITHIN, 1 + WITHIN)
    admitted = spread([one for one in near if one[1].fits], ADMITTED)
    refused = spread([one for one in near if not one[1].fits], REFUSED)
    for case, fit in [*admitted, *refused]:
        tried = [edge.train(case, edge.cap_bytes)]
        if tried[0]["ran_out"]:
            tried.append(edge.train(case, edge.cap_bytes))
        yield {**_facts(case, fit), "cap_bytes": edge.cap_bytes, "tries": tried, "ran": tried[-1]["ran_out"] is None}


def long_rows(edge: Edge, most: int, seconds: float) -> Iterator[dict[str, Any]]:
    """Single long rows near the edge, what waits in host memory too, under the card's cap; ends after `seconds`.

    Needs are those of training: nothing is written in a measurement. On a processor rows are a hundredth as long.
    """
    from tests.benchmarks.support.long_rows import long_cases

    begun = time.perf_counter()
    for case, judged in long_cases(edge.shape, edge.target)[:most]:
        if time.perf_counter() - begun > seconds:
            return
        edge.hold(case.offload)
        own = case if edge.base.on_card else replace(case, tokens=case.tokens // 100)
        tried = [edge.train(own, edge.cap_bytes, typical=1)]
        yield {**_facts(case, judged), "cap_bytes": edge.cap_bytes, "tries": tried, "ran": tried[-1]["ran_out"] is None}


def probed_rows(edge: Edge, most: int, seconds: float) -> Iterator[dict[str, Any]]:
    """Each configuration without a cap, then under ever higher ones until it runs; ends after `seconds`."""
    from tests.benchmarks.support.edge_cases import spread
    from trainables.memory.weights import FROZEN

    begun = time.perf_counter()
    for case, fit in spread(edge.between(PROBED_FROM, PROBED_TO), most):
        if time.perf_counter() - begun > seconds:
            return
        facts = _facts(case, fit)
        weights = sum(facts["components"][name] for name in FROZEN)
        tries = [edge.train(case, None, typical=1)]
        allocated = max(tries[0].get("peak_allocated_bytes") or 0, tries[0].get("training_allocated_bytes") or 0)
        for share in LADDER if edge.base.on_card else ():
            cap = round(allocated + share * (allocated - weights))
            tries.append({"share": share, **edge.train(case, cap, typical=1)})
            if tries[-1]["ran_out"] is None:
                break
        yield {**facts, "weight_bytes": weights, "allocated_bytes": allocated, "tries": tries}


def _memory_efficient() -> AbstractContextManager[Any]:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION)


def _shape(name: str) -> Any:
    from tests.benchmarks.support.shapes import SHAPES
    from trainables.base_model.shape import ModelShape

    return ModelShape.from_config({"model_type": "llama", "head_dim": None, **SHAPES[name]})


def _facts(case: Any, fit: Any) -> dict[str, Any]:
    prediction = fit.predictions[0]
    return {
        "case": {**vars(case), "offload": case.offload.to_dict(), "words": case.words}, "admitted": fit.fits,
        "predicted_bytes": prediction.peak_memory_bytes, "predicted_device_bytes": fit.device_bytes,
        "moment": prediction.peak_moment, "components": dict(prediction.components),
    }  # fmt: skip


def edge_line(row: dict[str, Any]) -> str:
    """One configuration near the edge in a line."""
    last = row["tries"][-1]
    plan, end = "admitted" if row["admitted"] else "refused", "ran" if row["ran"] else "ran out"
    again = " at the second try" if len(row["tries"]) > 1 and row["ran"] else ""
    return (
        f"{row['case']['words']:48} {plan:8} predicted {_gib(row['predicted_bytes'])} "
        f"({_gib(row['predicted_device_bytes'])} of the card)  allocated {_gib(last.get('peak_allocated_bytes'))} "
        f"reserved {_gib(last.get('peak_reserved_bytes'))}  {end}{again}"
    )


def probed_line(row: dict[str, Any]) -> str:
    """One configuration's least cap in a line."""
    free, last = row["tries"][0], row["tries"][-1]
    runs = f"runs at {100 * last['share']:.1f} %" if last.get("share") and not last["ran_out"] else "ran out at all"
    return (
        f"{row['case']['words']:48} predicted {_gib(row['predicted_bytes'])} allocated {_gib(row['allocated_bytes'])} "
        f"reserved {_gib(free.get('peak_reserved_bytes'))} / {_gib(free.get('training_reserved_bytes'))}  {runs}, "
        f"cache emptied {last['retries']} times"
    )


def _gib(value: int | None) -> str:
    return f"{value / GIB:6.2f}" if value else "     -"


def summary(rows: list[dict[str, Any]]) -> str:
    """The two kinds of error, counted."""
    admitted = [row for row in rows if row["admitted"]]
    refused = [row for row in rows if not row["admitted"]]
    ran_out, ran = sum(not row["ran"] for row in admitted), sum(row["ran"] for row in refused)
    return f"admitted: {len(admitted)}, of them ran out: {ran_out}; refused: {len(refused)}, of them would run: {ran}"


def main() -> None:
    """Trains all configurations, prints a line for each, writes JSON after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--probe", action="store_true", help="look for the least cap under which each runs")
    parser.add_argument("--long-rows", action="store_true", help="single rows of 8k to 40k tokens")
    parser.add_argument("--most", type=int, default=PROBED, help="configurations to probe, or of long rows")
    parser.add_argument("--seconds", type=float, default=400.0, help="after which no further one is begun")
    parser.add_argument("--card", type=float, default=14.56, metavar="GIB", help="the card's memory")
    parser.add_argument("--kind", default="h100", help="the card of the catalogue that computes")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shape", default="llama-3-8b")
    options = parser.parse_args()
    os.environ["PYTORCH_ALLOC_CONF"] = os.environ["PYTORCH_CUDA_ALLOC_CONF"] = EXPANDABLE  # before torch is imported
    edge = Edge(options)
    if options.long_rows:
        found = long_rows(edge, options.most, options.seconds)
    else:
        found = probed_rows(edge, options.most, options.seconds) if options.probe else edge_rows(edge)
    line = probed_line if options.probe else edge_line
    rows: list[dict[str, Any]] = []
    begun = time.perf_counter()
    for row in found:
        rows.append(row)
        print(f"{time.perf_counter() - begun:6.1f} s  {line(row)}", flush=True)
        if options.json:
            report = {"options": {**vars(options), "json": None}, "device": _device(options.device), "rows": rows}
            options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if not options.probe:
        print(summary(rows))


def _device(name: str) -> str:
    import torch

    from trainables.engine.bench import device_name

    return device_name(torch.device(name))


if __name__ == "__main__":
    main()
