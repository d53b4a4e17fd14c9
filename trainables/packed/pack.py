"""Groups a batch's rows into runs that share batched products."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch

from search_spaces.footprint import Footprint
from trainables.kernels.elementwise import kernels_on
from trainables.packed.adapter import LoraAdapter, PackedRows
from trainables.packed.dropout import Thinning, thinned_by

PADDING_BYTES = 2**30  # at most, of what fills up ranks, where a pass keeps it from forward to backward


class Run:
    """Neighbouring rows that share one batched product.

    Their adapters have equal rank and targets, and dropout on for all or for none; in a padded pack lower ranks are
    filled up with zeros, and rows without dropout have a rate of 0. `places` are the linear layers of a group that
    these adapters update. The rows are cut into equal units, each of one adapter: as large as the adapters' row counts
    allow.
    """

    def __init__(self, members: Sequence[PackedRows], places: tuple[int, ...], device: torch.device) -> None:
        self.members = list(members)
        self.places = places
        self.rows = slice(members[0].rows.start, members[-1].rows.stop)
        self.dropout = any(member.dropout for member in members)
        counts = [_count(member) for member in members]
        self.unit_rows = math.gcd(*counts)
        units = [m.adapter for m, count in zip(members, counts, strict=True) for _ in range(count // self.unit_rows)]
        self.unit_adapters = units
        self.adapters: list[LoraAdapter] = list(dict.fromkeys(units))
        self.ranks = [adapter.config.rank for adapter in self.adapters]
        self.rank = max(self.ranks)
        self.padded = min(self.ranks) < self.rank
        scalings = [adapter.config.scaling for adapter in units]
        self.first = True  # no run before it, of layers that read the same input, has any of its rows
        self.scales = torch.tensor(scalings, dtype=torch.float32, device=device)[:, None, None]
        self.adapter_of_unit = None
        if len(units) > len(self.adapters):
            self.adapter_of_unit = torch.tensor([self.adapters.index(one) for one in units], device=device)
        self._zeros: dict[tuple[int, int], torch.Tensor] = {}
        self.kept: dict[Any, Any] | None = None  # the adapters' weights side by side, where several passes need them
        self.thinning = None
        if self.dropout and kernels_on(device):
            parts = zip(members, counts, strict=True)
            self.thinning = Thinning([(thinned_by(m), m.dropout_key or 0, count) for m, count in parts], device)

    def zeros(self, rows: int, columns: int) -> torch.Tensor:
        """Returns zeros that fill up a rank, the same for all layers."""
        if (rows, columns) not in self._zeros:
            self._zeros[rows, columns] = self.scales.new_zeros(rows, columns)
        return self._zeros[rows, columns]


class Pack:
    """The adapters whose rows go through the model together, sorted by row."""

    def __init__(self, members: Sequence[PackedRows] = (), padded: bool = False, keeps: bool = False) -> None:
        """`padded`: adapters of unlike rank or dropout share products too. `keeps`: for passes without training, whose
        weights are laid side by side once for all of them."""
        self.members = tuple(members)
        self._padded, self._keeps = padded, keeps
        self._by_names: dict[tuple[str, ...], list[Run]] = {}
        self._by_targets: dict[tuple[torch.device, tuple[tuple[int, ...], ...]], list[Run]] = {}

    def updates(self, names: tuple[str, ...]) -> bool:
        """Whether any adapter has weights for one of the layers `names`."""
        return any(name in member.adapter.weights for member in self.members for name in names)

    def runs(self, names: tuple[str, ...], device: torch.device) -> list[Run]:
        """Returns the runs of rows at layers `names` on `device`, which read the same input.

        With dropout each layer has runs of its own, since its input has a mask of its own; and so it is in a padded
        pack.
        """
        if names not in self._by_names:
            places = range(len(names))
            targets = tuple(tuple(p for p in places if names[p] in m.adapter.weights) for m in self.members)
            if (device, targets) not in self._by_targets:  # a device's layers of like targets share their runs
                self._by_targets[device, targets] = self._made(targets, len(names), device)
            self._by_names[names] = self._by_targets[device, targets]
        return self._by_names[names]

    def _made(self, targets: Sequence[tuple[int, ...]], layers: int, device: torch.device) -> list[Run]:
        if self._padded:
            runs = [
                Run(members, (place,), device)
                for place in range(layers)
                for members in _updating(place, self.members, targets)
            ]
        else:
            runs = [
                Run(members, places, device)
                for members, own in _alike(self.members, targets)
                for places in ([(place,) for place in own] if members[0].dropout else [own])
            ]
        for number, run in enumerate(runs):
            run.kept = {} if self._keeps else None
            run.first = not any(_overlap(run.rows, before.rows) for before in runs[:number])
        return runs


def padding_pays(members: Sequence[PackedRows], run_tokens: int, room_bytes: float, number_bytes: int) -> bool:
    """Whether a pack's products are shorter padded: fewer runs, against multiplying by zeros.

    `run_tokens` is what another run costs in tokens' worth of work, of a whole pass. At a layer of as many outputs as
    inputs a column of rank costs 2 / in_features of the frozen product, for each token; members that do not say how
    many they have count with one. Not where members have unlike row counts, which part a padded run, nor where the
    zeros take more than `room_bytes`, `number_bytes` each.
    """
    if len({_count(member) for member in members}) != 1:
        return False
    footprints = [Footprint.of(member.adapter.config) for member in members]
    apart = sum(one != other for one, other in pairwise(footprints))
    highest = max(member.adapter.config.rank for member in members)
    tokens = _count(members[0]) * max(member.tokens or 1 for member in members)
    filled = sum(tokens * 2 * (highest - m.adapter.config.rank) / _in_features(m) for m in members)
    return run_tokens * apart > filled and _zeros(members, highest) * number_bytes <= room_bytes


def _zeros(members: Sequence[PackedRows], highest: int) -> int:
    """Counts the zeros that fill up all layers' weights to the highest rank."""
    adapters = [member.adapter for member in members]
    return sum(one.trainable_parameters // one.config.rank * (highest - one.config.rank) for one in adapters)


def _alike(
    members: Sequence[PackedRows], targets: Sequence[tuple[int, ...]]
) -> list[tuple[list[PackedRows], tuple[int, ...]]]:
    """Returns neighbours of equal targets, rank and dropout, and which layers they update."""
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


def _updating(place: int, members: Sequence[PackedRows], targets: Sequence[tuple[int, ...]]) -> list[list[PackedRows]]:
    """Returns neighbours that update one layer, of any rank but equal row counts, so that no part is cut into units."""
    found: list[list[PackedRows]] = []
    for member, own in zip(members, targets, strict=True):
        if place not in own:
            continue
        last = found[-1][-1] if found else None
        if last and last.rows.stop == member.rows.start and _count(last) == _count(member):
            found[-1].append(member)
        else:
            found.append([member])
    return found


def _overlap(one: slice, other: slice) -> bool:
    return bool(one.start < other.stop and other.start < one.stop)


def _count(member: PackedRows) -> int:
    return member.rows.stop - member.rows.start


def _in_features(member: PackedRows) -> int:
    return next(iter(member.adapter.weights.values())).a.shape[1]
