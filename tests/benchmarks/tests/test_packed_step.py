"""The benchmark's own arithmetic, and one tiny measurement from end to end."""

import argparse

from tests.benchmarks import mixed_step
from tests.benchmarks.packed_step import measure_cell, table
from tests.benchmarks.support import device_time
from tests.benchmarks.support.step_bench import Bench


def test_kernels_that_overlap_count_once() -> None:
    events = [(0, 10, "a"), (5, 12, "b"), (6, 8, "c"), (20, 25, "d"), (25, 26, "e")]
    assert device_time._union(events) == 12 + 6


def test_kernels_are_told_apart() -> None:
    kinds = {
        "fmha_cutlassF_f16_aligned_64x128_rf_sm80(PyTorchMemEffAttention)": "attention",
        "void kDequantizeBlockwise<__half, 512, 64, 8, 2>": "dequantization",
        "nvjet_sm90_hsh_320x128_64x3_1x2_h_bz_coopB_TNT": "products",
        "turing_fp16_s1688gemm_fp16_128x128_ldg8_f2f_tn": "products",
        "rms_norm_backward": "fused elementwise",
        "void at::native::(anonymous namespace)::multi_tensor_apply_kernel": "optimizer",
        "Memcpy DtoD (Device -> Device)": "copies",
        "void at::native::reduce_kernel<512, 1>": "other",
    }
    assert {name: device_time._kind(name) for name in kinds} == kinds


def test_a_tiny_cell_from_end_to_end() -> None:
    options = argparse.Namespace(
        device="cpu", model="tiny", precision=None, unfused=False, dropout=0.0, rows=2, adapters=[1, 2], repeats=1
    )
    cells = measure_cell(Bench(options), "q_v", 8)
    assert [cell["step"] for cell in cells] == ["peft", "packed 1", "floor 1", "packed 2", "floor 2"]
    assert all(cell["wall"] > 0 for cell in cells)
    assert len(table(cells).splitlines()) == 3


def test_a_tiny_mixed_pack_from_end_to_end() -> None:
    lines = mixed_step.measure(argparse.Namespace(device="cpu", model="tiny", tokens=8, repeats=1), "fp32")
    assert [line["step"] for line in lines] == ["padded", "apart", "one by one"]
    assert all(line["wall"] > 0 for line in lines)
    assert [row.split()[-1] for row in mixed_step.table(lines).splitlines()][1] == "1.00"
