"""What the doctor tries out."""

from __future__ import annotations

from study.environment.package_probe import cuda_facts, quantize_nf4


def test_nf4_quantizes_here() -> None:
    assert quantize_nf4()["device"] in ("cpu", "cuda")


def test_cuda_facts_agree_with_torch() -> None:
    import torch

    facts = cuda_facts()
    assert facts["built_for"] == torch.version.cuda
    assert facts["available"] == torch.cuda.is_available()
    assert len(facts["cards"]) == (torch.cuda.device_count() if facts["available"] else 0)
