"""Chooses which files of the checkout leave this machine: the code that git tracks, and nothing private."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from study.checkout import ROOMS
from study.environment.git import tracked_files, untracked_files
from study.secret_forms import is_secret_name

ALWAYS = "pyproject.toml"  # of the checkout's own files beside the rooms
SAMPLE_DATA = "trainables/sample_data"
CODE = (".py", ".yaml", ".yml", ".html", ".css", ".js", ".md")  # what is sent where git knows nothing
PROGRAMS = (".py", ".html", ".css", ".js", ".md")  # in which a name such as `secrets` is a subject
KEYS = (
    "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "*.ppk", "*.gpg", "*.asc", "*.der", "*.crt",
    "*.env", "*.token", "*.ovpn", "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "authorized_keys", "known_hosts",
    "*netrc", "*htpasswd",
)  # fmt: skip
WEIGHTS = (
    "*.safetensors", "*.gguf", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.onnx", "*.npy", "*.npz", "*.h5", "*.msgpack",
    "*.parquet", "*.arrow", "*.db", "*.db-journal", "*.zip", "*.tar", "*.gz", "*.pyc", "*.swp",
)  # fmt: skip
NAMED_SECRETS = ("*secret*", "*credential*", "*password*", "*passwd*", "*token", "*token.*", "*_key.*", "*apikey*")
FOLDERS = ("__pycache__", "runs", "storage", "adapters", "exported", "mlflow", "mlruns", "wandb", "data", "venv")


@dataclass(frozen=True)
class CheckoutFiles:
    """Files by their paths in the checkout; `untracked` are those that git does not know and that stay here."""

    files: dict[str, Path]
    untracked: tuple[str, ...] = ()
    by_git: bool = True  # else by their endings


def checkout_files(checkout: Path) -> CheckoutFiles:
    """Returns which files of the rooms are sent, as they lie here, changed or not.

    Where git tracks the checkout, those that it tracks; else those with an ending of code, and the sample data. Never
    dot-files, keys, tokens, weights or results, and nothing that is a link or lies behind one.
    """
    places = (ALWAYS, *ROOMS)
    tracked = tracked_files(checkout, places)
    by_git = ALWAYS in tracked
    names = tracked if by_git else tuple(_by_ending(checkout))
    untracked = untracked_files(checkout, ROOMS) if by_git else ()
    root = checkout.resolve()
    files = {name: checkout / name for name in sorted(names) if not is_private(name) and _is_own_file(root, name)}
    return CheckoutFiles(files, tuple(sorted(untracked)), by_git)


def is_private(name: str) -> bool:
    """Whether a file of this path must never be sent: dot-files, keys, tokens, weights, and what trials have left."""
    path = PurePosixPath(name)
    if any(part.startswith(".") or part in FOLDERS or part.endswith(".egg-info") for part in path.parts):
        return True
    low = path.name.lower()
    if any(fnmatch(low, pattern) for pattern in (*KEYS, *WEIGHTS)):
        return True
    named = is_secret_name(path.stem) or any(fnmatch(low, pattern) for pattern in NAMED_SECRETS)
    return named and path.suffix not in PROGRAMS


def rayignore_text() -> str:
    """Returns `.rayignore`: the same rules for Ray's own `ray job submit --working-dir .`, as far as it has words."""
    code = [f"!/{room}/**/*{ending}" for room in ROOMS for ending in CODE]
    lines = [
        "# What `ray job submit --working-dir .` leaves at home, beside what .gitignore names.",
        "# Written by `python -m study.cluster.package_files`. `python -m study submit` sends less: what git tracks.",
        "# In the rooms, all but code and the sample data:",
        *(f"/{room}/**/*.*" for room in ROOMS), *code, f"!/{SAMPLE_DATA}/*",
        "# Everywhere: secrets by name, but in programs; keys; weights; results; dot-files.",
        *NAMED_SECRETS, *(f"!*{ending}" for ending in PROGRAMS), *KEYS, *WEIGHTS, "tests/",
        *(f"{folder}/" for folder in FOLDERS), "*.egg-info/", ".?*",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _by_ending(checkout: Path) -> Iterator[str]:
    yield ALWAYS
    for room in ROOMS:
        for folder, names, files in os.walk(checkout / room):
            # A folder with a `.git` is somebody's own repository.
            names[:] = sorted(name for name in names if not os.path.lexists(Path(folder, name, ".git")))
            inside = Path(folder).relative_to(checkout).as_posix()
            yield from (f"{inside}/{name}" for name in files if name.endswith(CODE) or inside == SAMPLE_DATA)


def _is_own_file(root: Path, name: str) -> bool:
    """Whether it is a regular file at that very place, with no link on the way to it."""
    place = root / name
    return place.is_file() and place.resolve() == place


if __name__ == "__main__":
    print(rayignore_text(), end="")
