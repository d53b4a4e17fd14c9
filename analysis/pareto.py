"""The Pareto front of a study's trials, its hypervolume, and which of its members to take.

The functions over arrays minimize; `front` and what follows turn the directions once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

from study.records.objectives import Objective, objective_values
from study.records.record import TrialRecord

QUALITY_METRICS = ("perplexity", "accuracy")  # every other metric is a cost: what the quality is paid with
TOLERANCE = 0.02  # how much worse than the best, relatively, a trial may be and still count as near it


def non_dominated(points: ArrayLike) -> NDArray[np.bool_]:
    """Which rows of the `n x m`-dim points no other row dominates (minimize), as an `n`-dim mask.

    A row dominates another if it is nowhere greater and somewhere less; equal rows do not dominate each other, so all
    of them are kept. A row with NaN or infinity is never on the front and dominates nothing.
    """
    rows = _rows(points)
    mask: NDArray[np.bool_] = _finite(rows)
    if mask.any():
        mask[mask] = moocore.is_nondominated(rows[mask], keep_weakly=True)
    return mask


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """The volume that the `n x m`-dim points dominate, bounded by the `m`-dim reference (minimize).

    Zitzler and Thiele 1999 (doi 10.1109/4235.797969), computed by moocore. 0.0 without points; points that are not
    below the reference everywhere, and rows with NaN or infinity, contribute nothing. Raises ValueError where the
    reference is not finite or has another length than the points.
    """
    corner = np.asarray(reference, dtype=float)
    if corner.ndim != 1 or not np.isfinite(corner).all():
        raise ValueError(f"reference must be a list of finite numbers; it is {reference!r}")
    rows = _rows(points)
    if len(rows) and rows.shape[1] != len(corner):
        raise ValueError(f"points have {rows.shape[1]} columns, the reference {len(corner)}; they must agree")
    inside = rows[_finite(rows) & np.all(rows < corner, axis=1)] if len(rows) else rows
    return float(moocore.hypervolume(inside, ref=corner)) if len(inside) else 0.0


def knee(points: ArrayLike) -> int | None:
    """The row of the `n x m`-dim front that is nearest to the ideal point (minimize); None without a finite row.

    The ideal point takes each column's minimum, and each column is scaled to 0..1 over the rows, so that units do not
    matter: the compromise solution of Yu 1973 (doi 10.1287/mnsc.19.8.936), Euclidean. The first of equal rows wins.
    """
    rows = _rows(points)
    finite = _finite(rows)
    if not finite.any():
        return None
    low, high = rows[finite].min(axis=0), rows[finite].max(axis=0)
    scaled = (rows - low) / np.where(high > low, high - low, 1.0)
    distances = np.where(finite, np.linalg.norm(np.where(finite[:, None], scaled, 0.0), axis=1), np.inf)
    return int(np.argmin(distances))


def relative_loss(value: float, best: float) -> float:
    """By how much a value is worse than the best, as a share of the best (minimize); infinite against a best of 0."""
    if value == best:
        return 0.0
    return (value - best) / abs(best) if best else math.inf


def front(records: Sequence[TrialRecord], objectives: Sequence[Objective]) -> list[TrialRecord]:
    """The complete trials with all objectives finite that no other such trial dominates, cheapest first.

    The order follows the first objective that is a cost (best first), then the other objectives.
    """
    pairs = [(_point(record, objectives), record) for record in records if record.status == "complete"]
    known = [(point, record) for point, record in pairs if point]
    on_front = non_dominated([point for point, _ in known])
    members = [pair for pair, on in zip(known, on_front, strict=True) if on]
    cost = cost_index(objectives)
    members.sort(key=lambda member: (member[0][cost], member[0]))
    return [record for _, record in members]


def best(records: Sequence[TrialRecord], objectives: Sequence[Objective]) -> TrialRecord | None:
    """The member of the front with the best first objective (then second, and so on); None without a front."""
    members = front(records, objectives)
    return min(members, key=lambda record: _point(record, objectives) or ()) if members else None


def balanced(records: Sequence[TrialRecord], objectives: Sequence[Objective]) -> TrialRecord | None:
    """The front's `knee`: the member nearest to the best of every objective at once; None without a front."""
    members = front(records, objectives)
    index = knee([_point(record, objectives) or () for record in members])
    return None if index is None else members[index]


def front_document(records: Sequence[TrialRecord], objectives: Sequence[Objective]) -> dict[str, Any]:
    """What `pareto.json` holds: the objectives, the front with each member's values, and its hypervolume.

    Values stand in the metrics' own units and directions; the hypervolume is in the product of those units, None
    without a front.
    """
    members = front(records, objectives)
    corner = [objective.to_minimize(objective.reference) for objective in objectives]
    points = [_point(record, objectives) or () for record in members]
    return {
        "objectives": [_objective_document(objective) for objective in objectives],
        "front": [_member_document(record, objectives) for record in members],
        "hypervolume": hypervolume(points, corner) if members else None,
    }


def cost_index(objectives: Sequence[Objective]) -> int:
    """The position of the first objective that is a cost; the last one where none is."""
    costs = (i for i, objective in enumerate(objectives) if objective.metric not in QUALITY_METRICS)
    return next(costs, len(objectives) - 1)


def quality_index(objectives: Sequence[Objective]) -> int:
    """The position of the first objective that is a quality; else the second, since the first is then the cost."""
    qualities = (i for i, objective in enumerate(objectives) if objective.metric in QUALITY_METRICS)
    return next(qualities, 1)


def _rows(points: ArrayLike) -> NDArray[np.float64]:
    rows = np.asarray(points, dtype=float)
    return rows.reshape(0, 0) if rows.size == 0 else np.atleast_2d(rows)


def _finite(rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(rows).all(axis=1), dtype=np.bool_)


def _point(record: TrialRecord, objectives: Sequence[Objective]) -> tuple[float, ...] | None:
    """The record's objective values, to be minimized."""
    values = objective_values(record.measurements, objectives)
    if values is None:
        return None
    return tuple(objective.to_minimize(value) for objective, value in zip(objectives, values, strict=True))


def _objective_document(objective: Objective) -> dict[str, Any]:
    return {
        "metric": objective.metric,
        "direction": objective.direction,
        "reference": objective.reference,
        "unit": objective.unit,
    }


def _member_document(record: TrialRecord, objectives: Sequence[Objective]) -> dict[str, Any]:
    values = {objective.metric: record.measurements[objective.metric] for objective in objectives}
    return {"trial_id": record.trial_id, "config": record.config.to_dict(), **values}
