"""Defines the messages between trials, hosts and the keeper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from search_spaces.trial_config import TrialConfig

Stage = Literal["loading", "measuring", "training", "evaluating", "finishing", "ended"]  # what a trial is doing
STAGES: tuple[Stage, ...] = get_args(Stage)
ENGINE_VERSION = 4  # counts changes of the training engine after which costs do not compare
ADAPTERS_FOLDER = "adapters"  # in a study's directory: an adapter a folder, by trial id
STATE_FILE = "training.safetensors"  # a trial's state, in the folder of a checkpoint
ADAPTER_UNWRITTEN = "the adapter could not be written"  # in the reason of a trained trial: the study stops
REPORT_STEPS = 5  # optimizer steps between two reports, at least; but every rung is reported


@dataclass(frozen=True)
class JoinRequest:
    """A trial's request for a place on a host; `state` is a checkpoint to continue from.

    The keeper numbers a trial's incarnations upward: a host follows the highest it has seen and refuses the rest. A
    `suspect` was resident on a host that died: it works alone until it has taken a step.
    """

    trial_id: str
    incarnation: int
    config: TrialConfig
    state: bytes | None = None
    suspect: bool = False


@dataclass(frozen=True)
class Report:
    """One measurement of the evaluation split during training."""

    step: int  # optimizer steps done
    train_loss: float | None  # mean nats per target token since the report before
    perplexity: float
    learning_rate: float
    peak_memory_bytes: int | None = None  # of the configuration's footprint, measured alone
    total_steps: int | None = None  # of the whole training
    so_far: Outcome | None = None  # what the trial's record is made of, if it is stopped here


@dataclass(frozen=True)
class Outcome:
    """How a trial ended, and all that was measured: what its record is made of."""

    status: Literal["complete", "stopped", "infeasible", "diverged", "failed"]
    reason: str | None = None
    error: str | None = None
    infeasible: Mapping[str, Any] | None = None
    measurements: Mapping[str, Any] = field(default_factory=dict)
    curve: tuple[Mapping[str, Any], ...] = ()
    samples: tuple[Mapping[str, Any], ...] = ()
    eval_rows: Mapping[str, Any] | None = None
    test_rows: Mapping[str, Any] | None = None
    base_model: Mapping[str, Any] = field(default_factory=dict)
    device: Mapping[str, Any] = field(default_factory=dict)
    dataset: Mapping[str, Any] = field(default_factory=dict)
    comparable: Mapping[str, str] = field(default_factory=dict)
    has_adapter: bool = False


@dataclass(frozen=True)
class News:
    """What a host tells a trial that asks: the reports it has not seen yet, and the outcome once there is one.

    `leaving`: the host's node is about to be taken away, and what is not in a checkpoint by then is lost.
    """

    reports: tuple[Report, ...]
    outcome: Outcome | None
    step: int
    leaving: bool = False


@dataclass(frozen=True)
class ResidentStatus:
    """One line of the live table."""

    trial_id: str
    stage: Stage
    step: int
    total_steps: int
    train_loss: float | None = None
    perplexity: float | None = None
    pack_size: int = 1
    tokens_per_second: float | None = None
    peak_memory_bytes: int | None = None


class NotResidentError(Exception):
    """The host does not hold this trial (in this incarnation): it must join again from its own last state."""
