"""Computes how many adapters a device holds: what fits whatever comes together, in packs of equal size.

An adapter's state (weights, gradients, moments) is on its device from its first step to its last. Its rows' activations
are there only while they are in a pass, and a pass holds no more rows than gain anything: the engine cuts what is left
over into further passes. So all states must fit beside the rows of one usual pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WHOLE = 10_000  # of a device, as Ray counts it


@dataclass(frozen=True)
class AdapterBytes:
    """The bytes that one adapter adds to a device: its state, and one micro-batch's rows in a pass."""

    state_bytes: int
    rows_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """Both: what it takes alone."""
        return self.state_bytes + self.rows_bytes


def most_bytes(adapters: Sequence[AdapterBytes], together: int, in_a_pass: int) -> int:
    """Returns a bound on what any `together` of the adapters hold, with `in_a_pass` micro-batches in a pass at most.

    Exact where a pass holds all their micro-batches; else the largest states beside the largest rows.
    """
    totals = sorted((one.total_bytes for one in adapters), reverse=True)[:together]
    if together <= in_a_pass:
        return sum(totals)
    states = sorted((one.state_bytes for one in adapters), reverse=True)[:together]
    rows = sorted((one.rows_bytes for one in adapters), reverse=True)[:in_a_pass]
    return min(sum(totals), sum(states) + sum(rows))


def any_that_fit(adapters: Sequence[AdapterBytes], room_bytes: int, in_a_pass: int) -> int:
    """Returns the largest count of which any so many of the adapters fit the room together; 0 where one does not."""
    count = 0
    while count < len(adapters) and most_bytes(adapters, count + 1, in_a_pass) <= room_bytes:
        count += 1
    return count


def equal_places(trials: int, devices: int, most: int) -> int:
    """Returns the fewest places on each device with which the trials take as few and as small rounds as with `most`.

    Trials of equal length end together, so that a few left over would train in a round of their own, which costs as
    many launches and dequantizations as a full one: 20 trials with at most 16 run as 10 and 10. A round takes as long
    as its fullest device, and devices fill one after the other.
    """
    rounds = max(1, math.ceil(trials / (most * devices)))
    fewest = max(1, math.ceil(trials / (rounds * devices)))

    def slowest(places: int) -> int:
        return (rounds - 1) * places + min(places, trials - (rounds - 1) * places * devices)

    return min(range(fewest, max(fewest, most) + 1), key=slowest)


def rounds_of(shares: Sequence[int], devices: int, places: int) -> list[tuple[int, ...]]:
    """Returns the sizes of the packs on the devices in use, round by round, of trials of equal length.

    `shares` are the trials' parts of a device in ten-thousandths, each at most `WHOLE`, in the order in which they are
    proposed; at most `places` are out at a time. As Ray does, a trial takes the fullest device that has room; one that
    finds none waits, and the next is looked at.
    """
    waiting, rounds = list(shares), []
    while waiting:
        free, sizes = [WHOLE] * devices, [0] * devices
        left: list[int] = []
        for number, share in enumerate(waiting):
            device = min((d for d in range(devices) if free[d] >= share), key=free.__getitem__, default=None)
            if device is None or number - len(left) >= places:
                left.append(share)
                continue
            free[device] -= share
            sizes[device] += 1
        rounds.append(tuple(size for size in sizes if size))
        waiting = left
    return rounds
