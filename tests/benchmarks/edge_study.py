"""Trains configurations at the edge of a T4's memory, on rows of mixed length: none that is admitted runs out.

    python -m tests.benchmarks.edge_study --json OUT              24 configurations within 3 % of the edge
    python -m tests.benchmarks.edge_study --probe --json OUT      how much room 40 need over what they allocate

On a card: Llama-3-8B's shapes in NF4 with random weights, the allocator capped at 14.56 GiB less CUDA's context. Each
configuration is measured alone as a host measures it, then trained on batches as they come; where it runs out it is
tried once more, as a host does. Those that the plan refuses are tried too: what would have run was refused for nothing.
`--probe` looks for the least cap under which a configuration runs, as a multiple of what it allocates without one.
`--expandable` makes the allocator's segments expandable. `--shape tiny --device cpu` goes through everything on a
processor, to find faults.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GIB = 2**30
COUNT, WITHIN = 24, 0.03
PROBED, PROBED_FROM, PROBED_TO = 40, 0.85, 1.0  # of the card, as predicted
LADDER = (1.01, 1.03, 1.06, 1.10, 1.15, 1.21)  # caps over what is allocated
EXPANDABLE = "expandable_segments:True"


def edge_rows(shape: str, device_name: str) -> Iterator[dict[str, Any]]:
    """Each configuration near the edge, trained under the card's cap, the refused ones too."""
    import torch

    from tests.benchmarks.support.capped_training import load_base, train_capped
    from tests.benchmarks.support.edge_cases import T4_BYTES, between, spread, stands_for_a_t4

    base, target = load_base(shape, torch.device(device_name)), stands_for_a_t4()
    cap = T4_BYTES - target.calibration.constants.context_bytes
    near = between(_shape(base), target, (1 - WITHIN) * T4_BYTES, (1 + WITHIN) * T4_BYTES)
    for case, fit in [*spread([one for one in near if one[1].fits], COUNT // 2), *_refused(near)]:
        tried = [train_capped(base, case, cap)]
        if tried[0]["ran_out"]:
            tried.append(train_capped(base, case, cap))
        yield {**_facts(case, fit), "cap_bytes": cap, "tries": tried, "ran": tried[-1]["ran_out"] is None}


def _refused(near: list[Any]) -> list[Any]:
    from tests.benchmarks.support.edge_cases import spread

    return spread([one for one in near if not one[1].fits], COUNT // 2)


def probed_rows(shape: str, device_name: str, seconds: float) -> Iterator[dict[str, Any]]:
    """Each configuration without a cap, then under ever higher ones until it runs; ends after `seconds`."""
    import torch

    from tests.benchmarks.support.capped_training import load_base, train_capped
    from tests.benchmarks.support.edge_cases import SEEN_TO_RUN_OUT, T4_BYTES, between, planned, spread, stands_for_a_t4

    begun = time.perf_counter()
    base, target = load_base(shape, torch.device(device_name)), stands_for_a_t4()
    bases = {
        "base_allocated_bytes": torch.cuda.memory_allocated() if base.on_card else None,
        "base_reserved_bytes": torch.cuda.memory_reserved() if base.on_card else None,
    }
    near = between(_shape(base), target, PROBED_FROM * T4_BYTES, PROBED_TO * T4_BYTES)
    first = [(case, planned(case, _shape(base), target)) for case in SEEN_TO_RUN_OUT]
    for case, fit in [*first, *spread(near, PROBED - len(first))]:
        if time.perf_counter() - begun > seconds:
            return
        tries = [train_capped(base, case, None, typical=1)]
        allocated = max(tries[0].get("peak_allocated_bytes") or 0, tries[0].get("training_allocated_bytes") or 0)
        for factor in LADDER if base.on_card else ():
            tries.append({"factor": factor, **train_capped(base, case, round(factor * allocated), typical=1)})
            if tries[-1]["ran_out"] is None:
                break
        yield {**_facts(case, fit), **bases, "allocated_bytes": allocated, "tries": tries}


def _shape(base: Any) -> Any:
    """Llama-3-8B's, whose predictions choose the configurations, whatever is trained to find faults."""
    from tests.benchmarks.support.random_llama import SHAPES
    from trainables.base_model.shape import ModelShape

    known = SHAPES["llama-3-8b"]
    return ModelShape.from_config({"model_type": "llama", "head_dim": None, "tie_word_embeddings": False, **known})


def _facts(case: Any, fit: Any) -> dict[str, Any]:
    prediction = fit.predictions[0]
    return {
        "case": {**vars(case), "words": case.words}, "admitted": fit.fits,
        "predicted_bytes": prediction.peak_memory_bytes, "predicted_device_bytes": prediction.device_bytes,
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
    runs = f"runs at {last['factor']:.2f}" if last.get("factor") and not last["ran_out"] else "ran out at all caps"
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
    parser.add_argument("--seconds", type=float, default=400.0, help="after which no further one is probed")
    parser.add_argument("--expandable", action="store_true", help="with expandable segments")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shape", default="llama-3-8b")
    options = parser.parse_args()
    if options.expandable:  # before torch is imported
        os.environ["PYTORCH_ALLOC_CONF"] = os.environ["PYTORCH_CUDA_ALLOC_CONF"] = EXPANDABLE
    if options.probe:
        found, line = probed_rows(options.shape, options.device, options.seconds), probed_line
    else:
        found, line = edge_rows(options.shape, options.device), edge_line
    rows: list[dict[str, Any]] = []
    begun = time.perf_counter()
    for row in found:
        rows.append(row)
        print(f"{time.perf_counter() - begun:6.1f} s  {line(row)}", flush=True)
        if options.json:
            report = {"expandable": options.expandable, "device": _device(options.device), "rows": rows}
            options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if not options.probe:
        print(summary(rows))


def _device(name: str) -> str:
    import torch

    from trainables.engine.bench import device_name

    return device_name(torch.device(name))


if __name__ == "__main__":
    main()
