"""`python -m study doctor`: says what is missing on this machine, and how to get it.

It must run where packages are missing: what needs one is imported where it is used, and its absence is a result.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from study.checkout import CHECKOUT, foreign_rooms, shadowing
from study.environment import checks
from study.environment.checks import INSTALL, Check
from study.errors import DONE, FAILED
from study.output import say

PROBE_SECONDS = 300.0

Findings = Mapping[str, checks.Facts]  # by what was tried


def print_doctor(why_no_run: str = "") -> int:
    """Prints every check with its remedy and returns the exit code: 1 where something that is required is missing.

    `why_no_run` says what is wrong with the environment for a run; then Ray is not tried, which would take minutes.
    """
    say("Trying the packages, NF4, CUDA and Ray; this takes up to a minute …")
    found = examine(partial(probe, ray=not why_no_run), why_no_run)
    say(report(found))
    return FAILED if any(check.verdict == "missing" for check in found) else DONE


def examine(tried: Callable[[Sequence[str]], Findings], why_no_run: str = "") -> list[Check]:
    """Makes all checks of this machine; `tried` imports modules and tries what they can do (see `package_probe`)."""
    rooms = checks.check_rooms(shadowing(), foreign_rooms())
    try:
        from study.environment.requirements import project_requirements
    except ImportError as error:  # `packaging`, without which no range can be read
        return [rooms, Check("packages", "missing", f"{error.name} is not installed", INSTALL)]
    wanted = project_requirements()
    modules = [checks.module_of(requirement.name) for requirement in wanted.required]
    findings = tried(modules)
    found = [checks.check_python(wanted.python), rooms]
    found += [checks.check_package(one, findings.get(checks.module_of(one.name))) for one in wanted.required]
    found += [checks.check_extra(name, requirements) for name, requirements in wanted.extras.items()]
    found.append(checks.check_quickstart_model())
    found.append(checks.check_nf4(findings.get("nf4")))
    found.append(checks.check_ray(findings.get("ray cluster"), why_no_run))
    return [*found, *_machine(findings), checks.check_hub_token()]


def _machine(findings: Findings) -> list[Check]:
    """Checks cards, cores, memory and disks."""
    try:
        import psutil

        from study.hardware.machine import find_cards, usable_cores
        from trainables.user_cache import cache_root
    except ImportError as error:
        return [Check("hardware", "note", f"not looked at: {error.name} is not installed", INSTALL)]
    memory = psutil.virtual_memory()
    return [
        checks.check_cards(find_cards(), findings.get("cuda")),
        checks.check_cores(usable_cores()),
        checks.check_memory(memory.total, memory.available),
        checks.check_disk("cache folder", cache_root(), "Set LORA_FRONTIER_CACHE to a folder on a larger disk."),
        checks.check_disk("storage", CHECKOUT / "runs", "Set `storage` in the study file to a larger disk."),
    ]


def probe(modules: Sequence[str], seconds: float = PROBE_SECONDS, ray: bool = True) -> Findings:
    """Tries the modules in another process; what it was at when it died, or ran out of time, gets that as its error."""
    command = [sys.executable, "-m", "study.environment.package_probe", *(["--ray"] if ray else []), *modules]
    try:
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=seconds, check=False)
        output, end = done.stdout, f"the process died (exit code {done.returncode})"
    except subprocess.TimeoutExpired as error:
        output = error.stdout.decode("utf-8", "replace") if isinstance(error.stdout, bytes) else error.stdout or ""
        end = f"it took more than {seconds:g} s"
    return parse_findings(output, end)


def parse_findings(output: str, end: str) -> Findings:
    """Reads the probe's lines, by what was tried; other lines (packages may print) are left out."""
    findings: dict[str, dict[str, Any]] = {}
    for line in output.splitlines():
        try:
            finding = json.loads(line)
        except ValueError:
            continue
        if isinstance(finding, dict) and "what" in finding:
            findings[finding["what"]] = {"error": end} if finding.get("begun") else finding
    return findings


def report(found: Sequence[Check]) -> str:
    """Returns the checks as an aligned table, each remedy under its check, and the verdict on them all."""
    width = max(len(check.name) for check in found)
    lines = []
    for check in found:
        lines.append(f"{check.verdict:<8} {check.name:<{width}}  {check.found}".rstrip())
        if check.remedy:
            lines.append(f"{'':<8} {'':<{width}}  -> {check.remedy}")
    missing = [check.name for check in found if check.verdict == "missing"]
    summary = "Everything that is required is here."
    if missing:
        summary = f"Missing or broken: {', '.join(missing)}. All required packages at once: {INSTALL}"
    return "\n".join([*lines, "", summary])
