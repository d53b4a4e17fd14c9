"""Fills a split with whole groups of rows, and parts as few groups as can be where no whole ones add up.

All of it counts rows; a group is its size here. At most half of a split's rows, rounded up, are of one group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Filling:
    """The groups that fill a split: `whole` ones, sizes with their number, and `parts`, pairs of (size, rows taken)."""

    whole: Mapping[int, int]
    parts: tuple[tuple[int, int], ...] = ()

    @property
    def left_out(self) -> int:
        """The count of rows of the parted groups that are not taken."""
        return sum(size - taken for size, taken in self.parts)


def most_of_one_group(rows: int) -> int:
    """Returns how many of a split's rows one group may be: half, rounded up."""
    return (rows + 1) // 2


def fewest_left_out(sizes: Mapping[int, int], rows: int, most: int) -> Filling | None:
    """Returns a filling of exactly `rows` rows that leaves out as few rows as any can; None where there is none.

    `sizes` counts the groups of each size; no group gives more than `most` rows, which is half of `rows` at least. An
    optimum has this form: whole groups, `most` rows of up to two larger groups (the smallest of those, which lose
    least), and at most one other part; of two other parts, rows could move from one to the other until one is empty or
    whole.
    """
    small = {size: number for size, number in sizes.items() if size <= most and number}
    large = sorted(size for size, number in sizes.items() if size > most for _ in range(min(number, 3)))[:3]
    best: Filling | None = None
    for filling in _fillings(small, large, rows, most):
        if best is None or filling.left_out < best.left_out:
            best = filling
        if best.left_out == 0:
            break
    return best


def _fillings(small: Mapping[int, int], large: list[int], rows: int, most: int) -> Iterator[Filling]:
    for capped in range(3):
        left = rows - capped * most
        if left < 0 or capped > len(large):
            return
        parts = tuple((size, most) for size in large[:capped])
        whole = _adding_up(small, left)
        if whole is not None:
            yield Filling(whole, parts)
        for size in (*sorted(small), *large[capped : capped + 1]):
            others = {one: number - (one == size) for one, number in small.items()}
            taken = _longest_part(others, size, left, most)
            if taken:
                yield Filling(_adding_up(others, left - taken) or {}, (*parts, (size, taken)))


def _longest_part(others: Mapping[int, int], size: int, rows: int, most: int) -> int:
    """Returns the most rows of one parted group beside which whole other groups make up `rows`; 0: there are none."""
    sums = reachable(others, rows)
    longest = min(size - 1, most, rows)
    return next((taken for taken in range(longest, 0, -1) if sums >> (rows - taken) & 1), 0)


def whole_size(sizes: Mapping[int, int], at_least: int) -> int | None:
    """Returns the least size, from `at_least` to twice it, that whole groups add up to; None where there is none."""
    found = []
    for most in {most_of_one_group(at_least), *(size for size in sizes if at_least < 2 * size <= 2 * at_least)}:
        sums = reachable({size: number for size, number in sizes.items() if size <= most}, 2 * at_least)
        first = max(at_least, 2 * most - 1)  # the least size of which `most` rows are no more than half
        above = sums >> first
        if above:
            found.append(first + (above & -above).bit_length() - 1)
    return min(found, default=None)


def reachable(sizes: Mapping[int, int], most: int) -> int:
    """Returns the sums up to `most` that whole groups can make, as the bits of one number: bit 5 set, 5 can be made."""
    sums, mask = 1, (1 << (most + 1)) - 1
    for size, number in sizes.items():
        for times in _doublings(min(number, most // size)):
            sums = (sums | sums << (times * size)) & mask
    return sums


def _doublings(number: int) -> Iterator[int]:
    """Yields 1, 2, 4, ..., and a rest, which add up to `number`; sums of some of them make every count up to it."""
    step = 1
    while number > 0:
        yield min(step, number)
        number -= step
        step *= 2


def _adding_up(sizes: Mapping[int, int], total: int) -> Counter[int] | None:
    """Returns how many groups of each size add up to exactly `total`; None where none do."""
    steps, sums = [], [1]
    mask = (1 << (total + 1)) - 1
    for size, number in sizes.items():
        for times in _doublings(min(number, total // size)):
            steps.append((size, times))
            sums.append((sums[-1] | sums[-1] << (times * size)) & mask)
    if not sums[-1] >> total & 1:
        return None
    taken: Counter[int] = Counter()
    for (size, times), before in zip(reversed(steps), reversed(sums[:-1]), strict=True):
        if not before >> total & 1:  # cannot be made without this step
            taken[size] += times
            total -= times * size
    return taken
