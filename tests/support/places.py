"""Where things lie that tests read: the checkout, published results, and real models and data beside the checkout."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "tests" / "benchmarks" / "results"
SHARED = ROOT.parent / "shared"  # not in a user's clone: tests that read it skip without it
