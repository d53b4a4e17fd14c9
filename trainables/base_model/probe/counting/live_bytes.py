"""Counts the bytes of all tensors that are alive, operation by operation."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class ValuesAssumed(TorchDispatchMode):
    """Answers what code asks of the values of meta tensors, which have none: yes, or 1.

    transformers asks whether positions count on without a gap; they do.
    """

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        if function is torch.ops.aten._local_scalar_dense.default and arguments[0].is_meta:
            return arguments[0].dtype == torch.bool or 1
        return function(*arguments, **(keywords or {}))


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors that are made within the block and still alive, on any device, meta as well."""

    def __init__(self, there: Iterable[torch.Tensor]) -> None:
        """`there` are tensors from before, which do not count."""
        super().__init__()
        self.now = self.peak = 0
        self._sizes = {tensor.untyped_storage()._cdata: 0 for tensor in there}

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        result = function(*arguments, **(keywords or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self._note(value.untyped_storage())
        self.after(function, arguments)
        return result

    def after(self, function: Any, arguments: Any) -> None:
        """Is called after each operation."""

    def _note(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._freed, key)

    def _freed(self, key: int) -> None:
        self.now -= self._sizes.pop(key, 0)
