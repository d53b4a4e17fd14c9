"""Lets a card really run out beside parked adapters: the innocents end with the weights of an undisturbed run.

    python -m tests.benchmarks.lack_of_memory --shape llama-3-8b --json OUT

Three adapters train undisturbed, and one by one; then again, over the same base, beside one of high rank. Once all are
measured the allocator is capped so that this one can never take a step, and when the others are first brought back, it
is capped lower still for a while. What CUDA's context takes, as a host measures it, stands beside NVML's account of
the process.
`--shape tiny --device cpu` goes through everything on a processor, without caps.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

RANK, GUILTY_RANK, STEPS, ROWS, TOKENS = 16, 256, 6, 4, 512
TINY_TOKENS = 64  # of the shape whose way through is what is tried
MIB = 2**20


def make_engine(shape: str, device: Any) -> Any:
    """An engine over random weights in NF4, the same each time, and random rows of mixed length."""
    import torch

    from tests.benchmarks.support.capped_training import load_model
    from tests.support.small_engines import INFO, Letters
    from trainables.base_model.load import BaseModel
    from trainables.dataset.prepared import PreparedDataset
    from trainables.dataset.rows import Row, Split
    from trainables.engine.engine import Engine
    from trainables.settings import BaseModelSettings, DatasetSettings, TrainingSettings, TrialSettings

    ampere = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    model, dtype = load_model(shape, device, "bf16" if ampere else "fp16" if device.type == "cuda" else "fp32")
    draw = torch.Generator().manual_seed(0)
    longest = TINY_TOKENS if shape == "tiny" else TOKENS
    lengths = [longest // 4 + (97 * number) % (3 * longest // 4 + 1) for number in range(24)]
    rows = [
        Row(tuple(torch.randint(3, 500, (length,), generator=draw).tolist()), length // 2, None, str(number))
        for number, length in enumerate(lengths)
    ]
    splits = [Split(name, tuple(part), 0, 0) for name, part in (("train", rows), ("eval", rows[:4]), ("test", ()))]
    training = TrainingSettings(
        max_steps=STEPS, epochs=100, micro_batch_size=ROWS, gradient_accumulation_steps=1, evaluations=1
    )
    settings = TrialSettings(BaseModelSettings("random"), DatasetSettings("mine"), training)
    loaded = BaseModel(model, Letters(), INFO, "nf4", dtype, device)  # type: ignore[arg-type]
    return Engine(settings, loaded, PreparedDataset(*splits, "print", (), {}))


def configurations() -> dict[str, Any]:
    """The innocents, by trial."""
    from search_spaces.trial_config import TARGET_SETS, TrialConfig

    sets = (("a", "all_linear", RANK), ("b", "q_v", RANK), ("c", "all_linear", RANK // 2))
    return {name: TrialConfig("nf4", rank, 2 * rank, 0.0, TARGET_SETS[targets], 2e-4) for name, targets, rank in sets}


def train(engine: Any, device: Any, caps: bool) -> dict[str, Any]:
    """Works until all have ended, under the caps where `caps`; returns weights, ends, and what ran out."""
    import torch

    from trainables.engine import failures, parking

    seen: dict[str, Any] = {"lacks": [], "waited": 0}
    total = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0

    def cap(limit_bytes: float) -> None:
        if total:
            torch.cuda.set_per_process_memory_fraction(min(1.0, limit_bytes / total), torch.cuda.current_device())

    describe, back = failures._describe, parking.Parking.end
    limit = [float(total)]

    def described(error: Exception, where: Any) -> Any:
        seen["lacks"].append(str(error)[:160])
        return describe(error, where)

    def lower_once(aside: Any) -> None:
        if caps and total and not seen["waited"]:
            cap(torch.cuda.memory_reserved(device) + 8 * MIB)
        back(aside)
        seen["waited"] += sum(member.away for member in aside._members) if caps else 0
        cap(limit[0])

    failures._describe, parking.Parking.end = described, lower_once
    while any(one.stage == "measuring" for one in engine.residents.values()):
        engine.work()
    if caps and total:
        limit[0] = torch.cuda.memory_allocated(device) + 600 * MIB  # less than the gradients of the high rank
        cap(limit[0])
    weights: dict[str, Any] = {}
    while engine.residents:
        engine.work()
        for name, one in list(engine.residents.items()):
            one.awaiting_since = None
            if one.outcome:
                seen[name] = told(one.outcome)
                weights[name] = weights_of(one)
                engine.leave(name, 0)
    cap(total)
    failures._describe, parking.Parking.end = describe, back
    return {"seen": seen, "weights": weights}


def told(outcome: Any) -> dict[str, Any]:
    """What is kept of an outcome."""
    perplexity = outcome.measurements.get("perplexity")
    return {"status": outcome.status, "reason": outcome.reason, "facts": outcome.infeasible, "perplexity": perplexity}


def weights_of(resident: Any) -> Any:
    """All of an adapter's weights as one vector on the CPU."""
    import torch

    return torch.cat([parameter.detach().cpu().flatten() for parameter in resident.member.adapter.parameters()])


def check(shape: str, device_name: str) -> dict[str, Any]:
    """All runs, and how far the innocents' weights lie from the first's: relative to what training moved them."""
    from trainables.actors.allocator import use_expandable_segments

    expandable = device_name == "cuda" and use_expandable_segments()
    import torch

    from search_spaces.trial_config import TARGET_SETS, TrialConfig
    from trainables.measure.context_memory import context_bytes, estimate, open_contexts
    from trainables.measure.nvml import process_used_bytes
    from trainables.protocol import JoinRequest

    device = torch.device(device_name, 0) if device_name == "cuda" else torch.device(device_name)
    found: dict[str, Any] = {
        "shape": shape,
        "expandable": expandable,
        "allocator": os.environ.get("PYTORCH_ALLOC_CONF"),
    }
    if device.type == "cuda":
        open_contexts([device])
        found["context_opened"] = context(device, context_bytes, estimate, process_used_bytes)
    runs, start = {}, {}
    for name in ("undisturbed", "one by one", "disturbed"):
        engine = make_engine(shape, device)
        if device.type == "cuda":
            engine.warm_up()
        configs = configurations()
        if name == "disturbed":
            configs["guilty"] = TrialConfig("nf4", GUILTY_RANK, GUILTY_RANK, 0.0, TARGET_SETS["all_linear"], 1e-5)
        groups = [{trial: config} for trial, config in configs.items()] if name == "one by one" else [configs]
        runs[name], found[name] = {}, {}
        for group in groups:
            for trial, config in group.items():
                engine.join(JoinRequest(trial, 0, config))
            start |= {trial: weights_of(one) for trial, one in engine.residents.items()}
            trained = train(engine, device, caps=name == "disturbed")
            runs[name] |= trained["weights"]
            found[name] |= trained["seen"]
        del engine
    plain = runs["undisturbed"]
    for name in ("one by one", "disturbed"):  # the first says what other company alone does to sums of few bits
        apart = {one: float((runs[name][one] - plain[one]).norm() / (plain[one] - start[one]).norm()) for one in plain}
        found[f"apart, {name}"] = apart
    if device.type == "cuda":
        found["context_after"] = context(device, context_bytes, estimate, process_used_bytes)
    return found


def context(device: Any, own: Any, estimate: Any, process: Any) -> dict[str, Any]:
    """The context as a host tells it, without NVML's account of the process, and that account less what is reserved."""
    import torch

    from trainables.measure import context_memory
    from trainables.measure.nvml import device_used_bytes

    reserved, account = torch.cuda.memory_reserved(device), process(device)
    opened = context_memory._opened.get(device.index or 0)
    by_rise = estimate(None, device_used_bytes(device), reserved, opened)
    by_account = None if account is None else account - reserved
    return {"as_measured": own(device), "by_rise": by_rise, "by_nvml_process": by_account, "opened": str(opened)}


def main() -> None:
    """Prints what was found, and writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="llama-3-8b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    text = json.dumps(check(options.shape, options.device), indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
