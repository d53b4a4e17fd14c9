"""Times steps of a pack over a base model of which more and more layers wait in host memory.

    python -m tests.benchmarks.streaming.streamed_step --precision nf4 --streamed 0 16 32 --json OUT
    python -m tests.benchmarks.streaming.streamed_step --precision fp16 --streamed 0 32 --embedding --cap 14.1
    python -m tests.benchmarks.streaming.streamed_step --device cpu --model tiny --precision fp32 --tokens 16

Weights are random, drawn layer by layer into host memory; adapters have rank 16 and a row each (`--rows` for more),
whose last quarter are targets; gradient checkpointing, no FlashAttention, as on a T4. The settings run in turn,
`--rounds` times, each from the same adapters: losses must be those of the first setting that ran, bit by bit.
`--embedding`: the input embedding is looked up in host memory wherever layers are streamed. `--cap` (GiB) stands for a
smaller card: a setting that does not fit is left out. "Busy" is the time in which the card computes or copies; "bus"
is the speed of the layers' copies while they run.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from search_spaces.trial_config import TARGET_SETS, TrialConfig
from tests.benchmarks.streaming.host_base import HostBase, arranged, host_base
from tests.benchmarks.support.device_time import StepTime, note_busy
from tests.benchmarks.support.random_models import targets_of
from tests.benchmarks.support.shapes import SHAPES
from tests.benchmarks.support.step_bench import RANK, TARGET_SHARE, Endless, rows_of
from trainables.base_model.shape import ModelShape
from trainables.dataset.rows import Row
from trainables.measure.generation import generate_all, synchronize
from trainables.memory.offload import Offload
from trainables.memory.prediction import predict_pack
from trainables.memory.setting import AdapterLoad, MemorySetting
from trainables.packed.member import TrainingMember
from trainables.packed.packed_model import PackedModel
from trainables.packed.training import train_step
from trainables.settings import TrainingSettings

GIB = 2**30
TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
PROMPT_TOKENS = 16


@dataclass
class Setting:
    """What a count of streamed layers came to; bytes and busy seconds are None on a CPU."""

    streamed: int
    status: str = "measured"
    step_seconds: list[float] = field(default_factory=list)
    busy_seconds: float | None = None
    token_seconds: list[float] = field(default_factory=list)  # of a token of all adapters' texts
    peak_bytes: int | None = None
    reserved_bytes: int | None = None
    predicted_bytes: int | None = None
    copied_bytes: int = 0  # of a step
    late_copies: int = 0  # of a step
    copy_seconds: float | None = None  # of a step
    losses: list[list[float]] = field(default_factory=list)  # of each round
    equal: bool | None = None  # whether all losses are the first setting's; None: it is the first


def measure(options: argparse.Namespace) -> list[Setting]:
    """All settings, in turn."""
    device, nf4 = torch.empty(0, device=options.device).device, options.precision == "nf4"  # a card's with its number
    base = host_base(options.model, device, TYPES[compute_of(options)], nf4)
    rows = rows_of(options.adapters * options.rows, options.tokens, SHAPES[options.model]["vocab_size"])
    settings = [Setting(len(base.blocks) if count == "all" else int(count)) for count in options.streamed]
    if options.cap:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(options.cap * GIB / total, device)
    for number in range(options.rounds):
        for setting in settings:
            if setting.status == "measured":
                take_round(base, setting, rows, options, last=number == options.rounds - 1)
    there = [one for one in settings if one.losses]
    for one in there[1:]:
        one.equal = all(losses == there[0].losses[0] for losses in (*one.losses, *there[0].losses))
    return settings


def take_round(base: HostBase, setting: Setting, rows: list[Row], options: argparse.Namespace, last: bool) -> None:
    """Arranges the model anew, and takes the same few steps as every other round."""
    offload = offload_of(setting, options)
    try:
        with arranged(base, offload.layers, offload.embedding, not options.unfused) as model:
            setting.predicted_bytes = predicted(model, options, offload)
            take_steps(model, setting, rows, options, last)
    except torch.OutOfMemoryError:
        setting.status = "does not fit"


def offload_of(setting: Setting, options: argparse.Namespace) -> Offload:
    """What waits in host memory."""
    return Offload(layers=setting.streamed, embedding=options.embedding and setting.streamed > 0)


def take_steps(model: PackedModel, setting: Setting, rows: list[Row], options: argparse.Namespace, last: bool) -> None:
    """One step to warm up, then those that are timed; in the last round one more under the profiler, and texts."""
    members = members_of(model, options)
    losses = []
    for number in range(options.steps + 1):
        before, begun = model.streams.traffic, _now(model)
        losses += [result.loss for result in train_step(model, members, rows)]
        if number:
            setting.step_seconds.append(_now(model) - begun)
        now = model.streams.traffic
        setting.copied_bytes = now.copied_bytes - before.copied_bytes
        setting.late_copies = now.late_copies - before.late_copies
    setting.losses.append(losses)
    if model.device.type == "cuda":
        setting.peak_bytes = torch.cuda.max_memory_allocated(model.device)
        setting.reserved_bytes = torch.cuda.max_memory_reserved(model.device)
        if last:
            taken = StepTime(0.0)
            note_busy(lambda: train_step(model, members, rows), taken)
            setting.busy_seconds = taken.busy
            setting.copy_seconds = sum(seconds for name, seconds in taken.top.items() if "HtoD" in name)
    if options.new_tokens:
        asked = [(member.adapter, rows[number].tokens[:PROMPT_TOKENS]) for number, member in enumerate(members)]
        begun = _now(model)
        written = generate_all(model, asked, options.new_tokens, 2**40)
        setting.token_seconds.append((_now(model) - begun) / max(map(len, written)))


def _now(model: PackedModel) -> float:
    synchronize(model.devices)
    return time.perf_counter()


def members_of(model: PackedModel, options: argparse.Namespace) -> list[TrainingMember]:
    """The adapters, each to train on its own rows for ever."""
    settings = TrainingSettings(gradient_accumulation_steps=1, schedule="constant", warmup_ratio=0.0)
    targets, half = targets_of(options.model, options.targets), compute_of(options) == "fp16"
    members = []
    for seed in range(options.adapters):
        config = TrialConfig(options.precision, RANK, 2.0 * RANK, options.dropout, targets, 1e-4, seed)
        plan: Any = Endless(*range(seed * options.rows, (seed + 1) * options.rows))
        members.append(TrainingMember(model.new_adapter(config), settings, plan, half))
    return members


def compute_of(options: argparse.Namespace) -> str:
    """The type of activations: fp16 over NF4 on a card, as on a T4."""
    own = "fp16" if options.device.startswith("cuda") else "fp32"
    return own if options.precision == "nf4" else options.precision


def predicted(model: PackedModel, options: argparse.Namespace, offload: Offload) -> int:
    """The peak that is predicted for the pack."""
    on_card = model.device.type == "cuda"
    setting = MemorySetting(
        options.precision, compute_of(options), device="cuda" if on_card else "cpu", offload=offload,
        attention="memory_efficient" if on_card else "cpu",
    )  # fmt: skip
    tokens = options.tokens
    load = AdapterLoad(
        RANK, targets_of(options.model, options.targets), options.dropout > 0, options.rows, tokens,
        options.rows * round(tokens * TARGET_SHARE),
    )  # fmt: skip
    shape = ModelShape.from_config(model.model.config.to_dict())
    return predict_pack(shape, setting, [load] * options.adapters).peak_memory_bytes


def table(settings: list[Setting]) -> str:
    """One line for each setting."""
    lines = [
        f"{'streamed':>8}{'step ms':>9}{'busy':>7}{'peak GiB':>10}{'reserved':>10}{'predicted':>11}{'GiB/step':>10}"
        f"{'late':>6}{'bus GiB/s':>11}{'token ms':>10}  losses"
    ]
    for one in settings:
        if not one.step_seconds:
            lines.append(f"{one.streamed:8}  {one.status}; predicted {_number(one.predicted_bytes, GIB)} GiB")
            continue
        bus = one.copied_bytes / GIB / one.copy_seconds if one.copy_seconds else None
        same = {None: "first", True: "equal", False: "NOT EQUAL"}[one.equal]
        lines.append(
            f"{one.streamed:8}{_milli(one.step_seconds):>9}{_number(one.busy_seconds, 1e-3, 0):>7}"
            f"{_number(one.peak_bytes, GIB):>10}{_number(one.reserved_bytes, GIB):>10}"
            f"{_number(one.predicted_bytes, GIB):>11}{one.copied_bytes / GIB:10.2f}{one.late_copies:6}"
            f"{_number(bus, 1.0, 1):>11}{_milli(one.token_seconds):>10}  {same}"
        )
    return "\n".join(lines)


def _number(value: float | None, unit: float, digits: int = 2) -> str:
    return "-" if value is None else f"{value / unit:.{digits}f}"


def _milli(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1e3:.0f}" if seconds else "-"


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--model", default="llama-3-8b", choices=sorted(SHAPES))
    parser.add_argument("--precision", default="nf4", choices=["nf4", *TYPES])
    parser.add_argument("--streamed", nargs="+", default=["0", "all"], help="counts of layers, or all")
    parser.add_argument("--embedding", "--embedding-in-host-memory", action="store_true")
    parser.add_argument("--cap", type=float, help="GiB of the allocator's memory")
    parser.add_argument("--unfused", action="store_true", help="through transformers' own layers")
    parser.add_argument("--adapters", type=int, default=8)
    parser.add_argument("--rows", type=int, default=1, help="rows of each adapter")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--targets", default="all_linear", choices=sorted(TARGET_SETS))
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="timed steps of a round")
    parser.add_argument("--new-tokens", type=int, default=0, help="of each adapter's text; 0: none is written")
    parser.add_argument("--json", type=Path)
    return parser.parse_args(words)


def main() -> None:
    """Measures, prints a table and writes JSON."""
    options = arguments()
    torch.backends.cuda.enable_flash_sdp(False)
    torch.backends.cuda.enable_cudnn_sdp(False)
    settings = measure(options)
    print(table(settings))
    if options.json:
        name = torch.cuda.get_device_name() if options.device.startswith("cuda") else f"{platform.machine()} CPU"
        about = {key: value for key, value in vars(options).items() if key != "json"}
        result = {"device": name, "torch": torch.__version__, "options": about, "settings": list(map(asdict, settings))}
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
