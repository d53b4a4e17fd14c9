"""Llama's predictions, byte for byte as they were when cards' peaks were compared with them.

The numbers are written anew only together with a new comparison (`tests.benchmarks.memory_table`).
"""

import itertools
import json
from pathlib import Path

from tests.support.trainables.memory_cases import ALL_LINEAR, Q_V, SHAPES
from trainables.memory.card_split import predict_split
from trainables.memory.prediction import adapter_bytes, base_bytes, predict_pack
from trainables.memory.setting import AdapterLoad, MemorySetting

KNOWN = Path(__file__).parent / "llama_predictions.json"
ATTENTION = {"cuda": ("flash", "memory_efficient", "math"), "cpu": ("cpu",)}
PACKS = {
    "q_v": (AdapterLoad(8, Q_V, False, 1, 512, 100),),
    "all_linear": (AdapterLoad(16, ALL_LINEAR, True, 2, 700, 1400),),
    "mixed": (
        AdapterLoad(4, ("down_proj",), True, 1, 300, 64),
        AdapterLoad(64, ("o_proj", "gate_proj"), False, 3, 1024, 500),
    ),
}


def predictions() -> dict[str, list[int]]:
    """Each case's moments, what its first adapter adds, what is there without, and its two cards' parts."""
    found = {}
    precisions = (("nf4", "fp16"), ("bf16", "bf16"), ("fp32", "fp32"), ("bf16", "fp32"))
    devices = [(device, attention) for device, every in ATTENTION.items() for attention in every]
    for name, (precision, compute), (device, attention), keeps, (pack, loads) in itertools.product(
        ("llama-2-7b", "llama-3.2-1b"), precisions, devices, (True, False), PACKS.items()
    ):
        shape = SHAPES[name]
        setting = MemorySetting(precision, compute, precision != "bf16", keeps, device, attention)
        prediction = predict_pack(shape, setting, loads)
        split = [one.device_bytes for one in predict_split(shape, setting, loads[0], 2)]
        sums = [sum(prediction.moments[moment].values()) for moment in sorted(prediction.moments)]
        case = f"{name} {precision} {compute} {device} {attention} {'checkpointing' if keeps else 'plain'} {pack}"
        found[case] = [*sums, adapter_bytes(shape, setting, loads[0]), base_bytes(shape, setting), *split]
    return found


def test_llamas_predictions_do_not_change():
    assert predictions() == json.loads(KNOWN.read_text())
