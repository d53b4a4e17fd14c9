"""torch's autograd compares sizes as before without sympy, and symbolic shapes are there once they are asked for."""

from __future__ import annotations

import subprocess
import sys

from tests.support.places import ROOT

PROBE = """
import sys, torch
from trainables.base_model.plain_sizes import SYMBOLIC, compare_sizes_plainly

compare_sizes_plainly()
x = torch.ones(3, requires_grad=True)
(gradient,) = torch.autograd.grad(2 * x, x, torch.full((3,), 4.0))
assert gradient.tolist() == [8.0] * 3
try:
    torch.autograd.grad(2 * x, x, torch.ones(4))
except RuntimeError as error:
    assert "Mismatch in shape" in str(error), error
else:
    raise AssertionError("sizes that differ were taken")
assert "sympy" not in sys.modules

from torch.fx.experimental.symbolic_shapes import ShapeEnv, expect_true, sym_eq
assert "sympy" in sys.modules
assert ShapeEnv.__module__ == sys.modules[SYMBOLIC].__name__ == SYMBOLIC
assert sys.modules[SYMBOLIC].ShapeEnv is ShapeEnv
size = ShapeEnv().create_unbacked_symint()
assert not isinstance(sym_eq((size, 2), (3, 2)), bool)
assert torch.compile(lambda y: y + 1, backend="eager")(x).tolist() == [2.0] * 3
"""


def test_sizes_are_compared_without_sympy_until_symbols_are_asked_for() -> None:
    command = [sys.executable, "-W", "ignore", "-c", PROBE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
