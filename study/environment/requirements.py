"""Reads which packages the project asks for, as pyproject.toml names them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from study.checkout import CHECKOUT


@dataclass(frozen=True)
class ProjectRequirements:
    """What must be installed, what each extra adds, and the range of Python versions."""

    python: str
    required: tuple[Requirement, ...]
    extras: Mapping[str, tuple[Requirement, ...]]

    def everything(self) -> tuple[Requirement, ...]:
        """Returns the required packages, then those of the extras."""
        return (*self.required, *(one for extra in self.extras.values() for one in extra))


def project_requirements(checkout: Path = CHECKOUT) -> ProjectRequirements:
    """Reads the checkout's pyproject.toml; requirements for other systems or Python versions are left out."""
    project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {name: _parsed(texts) for name, texts in project.get("optional-dependencies", {}).items()}
    return ProjectRequirements(project["requires-python"], _parsed(project["dependencies"]), extras)


def _parsed(texts: list[str]) -> tuple[Requirement, ...]:
    requirements = map(Requirement, texts)
    return tuple(one for one in requirements if one.marker is None or one.marker.evaluate())


def normalized(name: str) -> str:
    """Returns a package's name as registries compare it: `PyYAML` is `pyyaml`, `a_b.c` is `a-b-c`."""
    return re.sub(r"[-_.]+", "-", name).lower()
