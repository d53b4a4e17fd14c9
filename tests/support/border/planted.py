"""A checkout with everything in it that must not leave the machine."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

CODE = (
    "pyproject.toml", "study/Dockerfile", "study/run/driver.py", "study/secrets.py", "study/studies/a.yaml",
    "trainables/a.py", "trainables/sample_data/rows.json", "analysis/a.py", "analysis/templates/a.html",
    "search_spaces/own.yaml",
)  # fmt: skip
FILES = (
    "study/.env", "study/.env.production", "study/id_rsa", "study/id_ed25519.pub", "study/studies/.hf_token",
    "study/studies/patients.jsonl", "study/studies/patients.csv", "study/runs/x/adapters/t000/adapter.bin",
    "study/runs/x/results.jsonl", "study/runs/x/study.yaml", "study/server.pem", "study/tls.key",
    "study/credentials.json", "study/studies/secrets.yaml", "study/hf_token.txt", "study/token",
    "study/aws_credentials", "study/.netrc",
    "study/adapter_model.safetensors", "trainables/model.gguf", "trainables/model.pt", "analysis/cache.npz",
    "search_spaces/.ipynb_checkpoints/a.yaml", "study/__pycache__/run.pyc", "study/run/.driver.py.swp", "runs/x/a.py",
    "data/secret.jsonl", ".git-credentials", ".venv/bin/a.py", "venv/a.py", "exported/a.yaml", "study/optuna.db",
    "study/notebook.db-journal", "model.safetensors", "study/service-account-key.json",
    "study/backup.tar.gz", "wandb/run.yaml",
)  # fmt: skip
IN_NESTED = ("study/nested/code.py", "study/nested/deep/code.py")  # of somebody's own repository
LINKS = {"study/link.py": "outside.py", "study/inside.py": "checkout/study/run/driver.py"}
PLANTED = (*FILES, *LINKS)  # and those of the nested repository, which Ray's own command cannot tell from ours
BIG_BYTES = 2**30  # of `study/big.py`, which is sparse


def plant(checkout: Path) -> Path:
    """Writes the checkout into a folder that is not there yet, and a file outside of it."""
    for name in (*CODE, *FILES, *IN_NESTED, "study/notes.txt", "study/big.py"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text(name, encoding="utf-8")
    (checkout.parent / "outside.py").write_text("outside", encoding="utf-8")
    for name, target in LINKS.items():
        (checkout / name).symlink_to(checkout.parent / target)
    os.truncate(checkout / "study" / "big.py", BIG_BYTES)
    nested = checkout / "study" / "nested"
    git(nested, "init", "-q")
    git(nested, "add", ".")
    git(nested, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "first")
    return checkout


def git(folder: Path, *arguments: str) -> str:
    """Runs git there, with nobody's settings, and returns what it prints."""
    alone = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **alone})
    return done.stdout.strip()
