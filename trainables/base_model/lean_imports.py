"""Imports torch, transformers and bitsandbytes in a host, without what they import and a host never calls.

Of the time that these imports take, half goes to torch's compiler with sympy, to torch's distributed tensors, and to
packages of which transformers wants one function, such as scikit-learn. While they are imported in a host, nothing is
marked for a compiler, such packages are not found, and torch says that it is not distributed.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from unittest.mock import patch

from trainables.base_model.plain_sizes import compare_sizes_plainly

log = logging.getLogger(__name__)

IMPORTED = ("transformers.models.llama.modeling_llama", "transformers.models.auto.modeling_auto")
COMPILER = ("torch._dynamo", "torch._dynamo._trace_wrapped_higher_order_op")
UNUSED = ("scipy", "sklearn", "torchvision", "torchaudio", "pandas", "librosa", "soundfile", "triton")  # asked for


def import_libraries() -> None:
    """Imports torch and the model classes, leanly; as they are where that fails, as with a version to come."""
    import torch.utils.checkpoint

    compare_sizes_plainly()
    _call_straight(torch.optim.Optimizer)
    _call_straight(torch.utils.checkpoint)
    _leanly(*IMPORTED)


def _call_straight(owner: Any) -> None:
    """Lets the owner's functions that torch keeps from its compiler be called without importing the compiler."""
    import torch

    kept: Any = getattr(torch, "_disable_dynamo")  # noqa: B009 (torch's types do not name it)
    marked = kept(lambda: None).__code__
    for function in vars(owner).values():
        if getattr(function, "__code__", None) is marked:
            setattr(function.__wrapped__, "__dynamo_disable", function.__wrapped__)


def import_quantization() -> None:
    """Imports bitsandbytes, leanly; it asks each card what it can do, and so opens the process' context there."""
    _leanly("bitsandbytes")


def _leanly(*names: str) -> None:
    try:
        with lean_imports():
            for name in names:
                importlib.import_module(name)
    except Exception as error:
        log.debug("Imported in full, since less failed: %s: %s", type(error).__name__, error)
        for name in names:
            importlib.import_module(name)


@contextmanager
def lean_imports() -> Iterator[None]:
    """Imports what is imported within it without torch's compiler and distributed tensors, and the packages `UNUSED`.

    All of that can be imported afterwards: what has taken a name of the compiler imports it when it calls it.
    """
    import torch

    absent: dict[str, ModuleType | None] = dict.fromkeys(UNUSED)  # where None stands, Python finds no such package
    absent.update({name: _Deferred(name) for name in COMPILER})
    absent = {name: module for name, module in absent.items() if name not in sys.modules}
    with (
        patch.object(torch, "compile", _unchanged),
        patch.object(torch, "_disable_dynamo", _unchanged),
        patch.object(torch.compiler, "disable", _unchanged),
        patch.object(torch.distributed, "is_available", lambda: False),
    ):
        sys.modules.update(absent)  # type: ignore[arg-type]
        try:
            yield
        finally:
            for name in absent:
                sys.modules.pop(name, None)


class _Deferred(ModuleType):
    """Stands for a module until something of it is called after the imports."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []  # a package, whose modules are deferred too

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _deferred(self.__name__, name)


def _deferred(module: str, name: str) -> Callable[..., Any]:
    """Returns a function that calls `name` of the module; as a decorator, while it is deferred, it does nothing."""

    def call(*args: Any, **options: Any) -> Any:
        if not isinstance(sys.modules.get(module), _Deferred):
            return getattr(importlib.import_module(module), name)(*args, **options)
        if len(args) == 1 and callable(args[0]) and not options:
            return args[0]
        raise ImportError(f"{module}.{name} was called while it was imported")

    return call


def _unchanged(function: Any = None, *args: Any, **options: Any) -> Any:
    """Stands for a decorator, with options or without, that leaves its function as it is."""
    return (lambda decorated: decorated) if function is None else function
