"""The doctor as a whole, with a stand-in for what takes time; and the process that tries packages out."""

from __future__ import annotations

import builtins
import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from study.checkout import CHECKOUT
from study.environment import doctor
from study.environment.checks import Check
from study.environment.doctor import Findings, examine, parse_findings, probe, report


def all_well(modules: Sequence[str], ray: bool = True) -> Findings:
    return {
        **{module: {"error": None} for module in modules},
        "cuda": {"error": None, "built_for": None, "available": False, "cards": [], "visible": None},
        "nf4": {"error": None, "device": "cpu"},
        "ray cluster": {"error": None, "address": None, "cpus": 2.0, "gpus": 0},
    }


def test_a_machine_that_is_well(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "probe", all_well)
    monkeypatch.setattr("study.hardware.machine.find_cards", _no_cards)
    assert doctor.print_doctor() == 0
    output = capsys.readouterr().out
    assert "Everything that is required is here." in output
    for name in ("Python", "torch", "bitsandbytes", "quickstart", "Ray", "memory", "hub token", "own packages"):
        assert name in output


def test_what_is_broken_is_named_and_counts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(modules: Sequence[str], ray: bool = True) -> Findings:
        return {**all_well(modules), "torch": {"error": "OSError: libcudart"}, "ray cluster": {"error": "timed out"}}

    monkeypatch.setattr(doctor, "probe", broken)
    assert doctor.print_doctor() == 1
    output = capsys.readouterr().out
    assert "Missing or broken: torch, Ray." in output
    assert "cannot be imported: OSError: libcudart" in output


def test_ray_is_not_tried_where_the_environment_forbids_a_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def tried(modules: Sequence[str], ray: bool = True) -> Findings:
        assert not ray
        return {name: one for name, one in all_well(modules).items() if name != "ray cluster"}

    monkeypatch.setattr(doctor, "probe", tried)
    assert doctor.print_doctor("RAY_ADDRESS: nobody is there. Unset it.") == 1
    output = capsys.readouterr().out
    assert "not tried: RAY_ADDRESS: nobody is there. Unset it." in output
    assert "Missing or broken: Ray." in output


@pytest.mark.parametrize(("absent", "named"), [("packaging", "packages"), ("psutil", "hardware")])
def test_it_runs_where_its_own_helpers_are_missing(monkeypatch: pytest.MonkeyPatch, absent: str, named: str) -> None:
    for module in ("study.environment.requirements", "study.hardware.machine"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.partition(".")[0] == absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.partition(".")[0])
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    found = examine(all_well)
    monkeypatch.undo()
    assert any(check.name == named and absent in check.found for check in found)


def test_findings_until_an_early_end() -> None:
    lines = [
        json.dumps({"what": "torch", "begun": True}),
        "a package prints this",
        json.dumps({"what": "torch", "error": None}),
        json.dumps(["no finding"]),
        json.dumps({"what": "ray", "begun": True}),
    ]
    assert parse_findings("\n".join(lines), "the process died (exit code -11)") == {
        "torch": {"what": "torch", "error": None},
        "ray": {"error": "the process died (exit code -11)"},
    }


def test_the_probe_outlives_a_package_that_ends_its_process(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("packages")
    (folder / "fine_one.py").write_text("")
    (folder / "raises_one.py").write_text("raise SystemExit('not here')")
    (folder / "dies_one.py").write_text("import os; os._exit(7)")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    real = subprocess.run

    def without_ray(command: list[str], **options: Any) -> Any:
        return real([word for word in command if word != "--ray"], **options)

    monkeypatch.setattr(subprocess, "run", without_ray)
    found = probe(["fine_one", "no_such_module", "raises_one", "dies_one", "json"], seconds=60)
    assert found["fine_one"]["error"] is None
    assert found["no_such_module"]["error"].startswith("ModuleNotFoundError: No module named")
    assert found["raises_one"]["error"] == "SystemExit: not here"
    assert found["dies_one"]["error"] == "the process died (exit code 7)"
    assert "json" not in found


def test_the_probe_does_not_wait_for_ever(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("packages")
    (folder / "slow_one.py").write_text("import time; time.sleep(600)")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    found = probe(["json", "slow_one"], seconds=2)
    assert found.get("slow_one", {"error": "it took more than 2 s"})["error"] == "it took more than 2 s"


def test_the_report_is_aligned_with_remedies_below() -> None:
    text = report([Check("a", "ok", "1.0"), Check("long name", "missing", "not installed", "pip install it")])
    assert text.splitlines() == [
        "ok       a          1.0",
        "missing  long name  not installed",
        "                    -> pip install it",
        "",
        "Missing or broken: long name. All required packages at once: pip install -e .",
    ]


def test_importing_it_needs_the_standard_library_alone() -> None:
    script = (
        "import sys; import study.environment.doctor, study.cli.main; "
        "print([m for m in ('yaml', 'ray', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr


def _no_cards() -> Any:
    from study.hardware.machine import Cards

    return Cards(reason="no library")
