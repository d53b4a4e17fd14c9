"""Checks what surrounds a run before it begins: the environment's variables, Ray's address and folder."""

from __future__ import annotations

import os

from study.cluster.ray_address import LOCAL, ray_address
from study.cluster.ray_place import place_faults
from study.environment.variables import variable_faults
from study.errors import ConfigError


def runs_here() -> bool:
    """Whether a study runs on this machine alone, on a Ray of its own.

    Raises ConfigError with everything that is wrong with the environment for it.
    """
    faults = variable_faults(os.environ)
    try:
        local = ray_address() == LOCAL
        faults += place_faults(os.environ) if local else []
    except ConfigError as error:
        faults += error.faults
    if faults:
        raise ConfigError(faults)
    return local


def why_not() -> str:
    """Returns what `runs_here` refuses, on one line; an empty text where it refuses nothing."""
    try:
        runs_here()
    except ConfigError as error:
        return " ".join(str(error).split("\n"))
    return ""
