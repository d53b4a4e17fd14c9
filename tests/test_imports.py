"""What importing costs: rooms that need no torch load none, and no import reaches for the network or a process."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.places import ROOT

HEAVY = ("torch", "transformers", "peft", "bitsandbytes", "datasets", "accelerate")
# Imports modules in a fresh process; prints what got loaded, whether the environment changed, and what was reached for.
PROBE = """
import importlib, json, os, sys
reached, before = [], dict(os.environ)
watched = ("socket.connect", "socket.bind", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.fork")
sys.addaudithook(lambda event, _: reached.append(event) if event in watched else None)
for name in sys.argv[1:]:
    importlib.import_module(name)
changed = sorted(name for name in {*before, *os.environ} if before.get(name) != os.environ.get(name))
print(json.dumps({"loaded": sorted(sys.modules), "changed": changed, "reached": reached}))
"""


def _modules(room: str) -> list[str]:
    """The modules of a package and of all packages in it."""
    files = sorted((ROOT / room).rglob("*.py"))
    return [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]


def _import(*names: str, folder: Path = ROOT) -> dict[str, list[str]]:
    command = [sys.executable, "-c", PROBE, *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    seen: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return seen


def _heavy(seen: dict[str, list[str]]) -> list[str]:
    return [name for name in seen["loaded"] if name.split(".")[0] in HEAVY]


@pytest.mark.parametrize("room", ["analysis", "search_spaces"])
def test_a_room_without_models_imports_nothing_heavy_and_touches_nothing(room: str) -> None:
    names = _modules(room)
    assert len(names) > 3
    seen = _import(*names)
    assert set(names) <= set(seen["loaded"])
    assert _heavy(seen) == []
    assert [name for name in seen["loaded"] if name.split(".")[0] == "ray"] == []
    assert (seen["changed"], seen["reached"]) == ([], [])


def test_the_analysis_knows_of_the_other_rooms_only_records_errors_and_the_masking_of_secrets() -> None:
    files = sorted((ROOT / "analysis").rglob("*.py"))
    assert {"analysis", "figures", "report", "statistics"} <= {file.parent.name for file in files}
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        froms = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        names = {each.name for node in ast.walk(tree) if isinstance(node, ast.Import) for each in node.names}
        rooms = {name for name in froms | names if name.split(".")[0] in ("study", "trainables", "search_spaces")}
        known = {"study.errors", "study.secrets"}
        if file.name == "javascript.py":  # it keeps what takes long to make where all rooms do
            known.add("trainables.user_cache")
        foreign = {name for name in rooms if name not in known and not name.startswith("study.records.")}
        assert foreign == set(), file.relative_to(ROOT)


def test_a_trial_imports_no_torch() -> None:
    seen = _import("trainables.actors.lora_trial")
    assert "ray.tune" in seen["loaded"]
    assert _heavy(seen) == []
    assert "socket.connect" not in seen["reached"]


def test_the_probe_sees_what_it_looks_for(tmp_path: Path) -> None:
    guilty = "import os, socket\nimport peft\nos.environ['X_PROBED'] = '1'\nsocket.getaddrinfo('localhost', 1)\n"
    (tmp_path / "guilty.py").write_text(guilty, encoding="utf-8")
    (tmp_path / "peft.py").write_text("", encoding="utf-8")  # a stand-in, since the true one takes seconds
    seen = _import("guilty", folder=tmp_path)
    assert _heavy(seen) == ["peft"]
    assert (seen["changed"], seen["reached"]) == (["X_PROBED"], ["socket.getaddrinfo"])
