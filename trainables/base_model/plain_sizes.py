"""Compares tensors' sizes as numbers, in place of torch's symbolic shapes, which import sympy for it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

SYMBOLIC = "torch.fx.experimental.symbolic_shapes"


def compare_sizes_plainly() -> None:
    """Stands in for torch's module of symbolic shapes, until anything else of it is asked for than two comparisons."""
    if SYMBOLIC not in sys.modules:
        sys.modules[SYMBOLIC] = _PlainSizes(SYMBOLIC)


class _PlainSizes(ModuleType):
    """What torch's autograd asks of the module where sizes are numbers; all else is the module's own."""

    def sym_eq(self, one: Any, other: Any) -> Any:
        """Whether two sizes are the same."""
        if _are_numbers(one) and _are_numbers(other):
            return tuple(one) == tuple(other)
        return self._module().sym_eq(one, other)

    def expect_true(self, value: Any, skip: int = 0) -> Any:
        """Returns the truth of a comparison that is expected to hold."""
        return value if type(value) is bool else self._module().expect_true(value, skip + 1)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._module(), name)

    def _module(self) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return importlib.import_module(self.__name__)


def _are_numbers(sizes: Any) -> bool:
    return isinstance(sizes, Sequence) and all(type(size) is int for size in sizes)
