"""Which rows of a batch go through a batched product together."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from trainables.elementwise import kernels_on
from trainables.lora_adapter import LoraAdapter, PackedRows
from trainables.lora_dropout import Thinning


class Run:
    """Neighbouring rows that share one batched product: equal rank and targets, and dropout on for all or for none.

    `places` are the linear layers of a group that these adapters update. The rows are cut into equal units, each of one
    adapter: as large as the adapters' row counts allow.
    """

    def __init__(self, members: Sequence[PackedRows], places: tuple[int, ...], device: torch.device) -> None:
        self.members = list(members)
        self.places = places
        self.rows = slice(members[0].rows.start, members[-1].rows.stop)
        self.dropout = members[0].dropout
        counts = [member.rows.stop - member.rows.start for member in members]
        self.unit_rows = math.gcd(*counts)
        units = [m.adapter for m, count in zip(members, counts, strict=True) for _ in range(count // self.unit_rows)]
        self.unit_adapters = units
        self.adapters: list[LoraAdapter] = list(dict.fromkeys(units))
        scalings = [adapter.config.scaling for adapter in units]
        self.scales = torch.tensor(scalings, dtype=torch.float32, device=device)[:, None, None]
        self.adapter_of_unit = None
        if len(units) > len(self.adapters):
            self.adapter_of_unit = torch.tensor([self.adapters.index(one) for one in units], device=device)
        self.thinning = None
        if self.dropout and kernels_on(device):
            parts = zip(members, counts, strict=True)
            self.thinning = Thinning([(m.adapter.config, m.dropout_key or 0, count) for m, count in parts], device)


class Pack:
    """The adapters whose rows go through the model together, sorted by row."""

    def __init__(self, members: Sequence[PackedRows] = ()) -> None:
        self.members = tuple(members)
        self._by_names: dict[tuple[str, ...], list[Run]] = {}
        self._by_targets: dict[tuple[torch.device, tuple[tuple[int, ...], ...]], list[Run]] = {}

    def updates(self, names: tuple[str, ...]) -> bool:
        """Whether any adapter has weights for one of the layers `names`."""
        return any(name in member.adapter.weights for member in self.members for name in names)

    def runs(self, names: tuple[str, ...], device: torch.device) -> list[Run]:
        """The runs of rows at layers `names` on `device`, which read the same input.

        With dropout each layer thins the input anew, in runs of its own.
        """
        if names not in self._by_names:
            places = range(len(names))
            targets = tuple(tuple(p for p in places if names[p] in m.adapter.weights) for m in self.members)
            if (device, targets) not in self._by_targets:  # a device's layers of like targets share their runs
                self._by_targets[device, targets] = self._made(targets, device)
            self._by_names[names] = self._by_targets[device, targets]
        return self._by_names[names]

    def _made(self, targets: Sequence[tuple[int, ...]], device: torch.device) -> list[Run]:
        return [
            Run(members, places, device)
            for members, own in _alike(self.members, targets)
            for places in ([(place,) for place in own] if members[0].dropout else [own])
        ]


def _alike(
    members: Sequence[PackedRows], targets: Sequence[tuple[int, ...]]
) -> list[tuple[list[PackedRows], tuple[int, ...]]]:
    """Neighbours of equal targets, rank and dropout, and which layers they update."""
    found: list[tuple[list[PackedRows], tuple[int, ...]]] = []
    for member, own in zip(members, targets, strict=True):
        if found and own == found[-1][1] and _joins(found[-1][0][-1], member):
            found[-1][0].append(member)
        elif own:
            found.append(([member], own))
    return found


def _joins(last: PackedRows, member: PackedRows) -> bool:
    same_rank = last.adapter.config.rank == member.adapter.config.rank
    return last.rows.stop == member.rows.start and same_rank and last.dropout == member.dropout
