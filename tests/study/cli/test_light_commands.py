"""The commands that plan and read a study work without the libraries that models are trained with."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from study.errors import DONE, FAILED
from tests.support.places import ROOT, SHARED

HEAVY = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "datasets", "pandas", "sympy", "safetensors")
# Runs a command in a fresh process, where Ray is not to be started; prints what is loaded at its end.
PROBE = """
import json, sys
from study.cli.main import main
if sys.argv[1] == "run":
    from study.cluster.ray_start import RayStart
    from study.run import lifecycle
    RayStart.begin = lambda self: None  # what would start Ray, beside the checks
    lifecycle._run = lambda study: None
code = main(sys.argv[1:])
print(json.dumps([code, sorted({name.split(".")[0] for name in sys.modules})]))
"""


def loaded_by(*command: str, expected: int | None = DONE) -> set[str]:
    """The packages that a process has loaded once it has done a command, with this exit code (None: any)."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *command], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout, done.stderr
    code, loaded = json.loads(done.stdout.splitlines()[-1])
    assert expected in (code, None), done.stderr
    return set(loaded)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (SHARED / "models" / "stories260K").is_dir():
        pytest.skip("needs the models beside the checkout (../shared/models)")
    path = tmp_path_factory.mktemp("light") / "study.yaml"
    text = (ROOT / "study" / "studies" / "quickstart.yaml").read_text()
    place = text.index("base_model:")
    rest = text[text.index("\n", place) :].replace("../../search_spaces", str(ROOT / "search_spaces"))
    model = f"base_model: {{path: {SHARED / 'models' / 'stories260K'}}}"
    path.write_text(f"{text[:place]}{model}{rest}".replace("max_tokens: 48", "max_tokens: 512"))
    return path


def test_a_plan_loads_no_training_and_no_search(study: Path) -> None:
    assert not loaded_by("plan", str(study)) & {*HEAVY, "ray", "optuna", "sqlalchemy", "scipy", "pyarrow"}


def test_a_run_loads_none_before_ray_starts(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert not loaded_by("run", str(study), "--out", str(out), expected=FAILED) & {*HEAVY, "ray"}
    assert (out / "study.yaml").is_file()  # it came as far
    other = shutil.copytree(out, tmp_path / "other")
    assert not loaded_by("report", str(out)) & {*HEAVY, "ray"}
    assert not loaded_by("compare", str(out), str(other), expected=None) & {*HEAVY, "ray"}
    assert not loaded_by("watch", str(out), expected=None) & {*HEAVY, "ray"}


def test_what_is_asked_of_a_cluster_loads_none() -> None:
    assert not loaded_by("status", expected=None) & set(HEAVY)
