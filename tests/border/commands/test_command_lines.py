"""Command lines that nobody should have typed: refused at once, by the option's name, and nothing is made."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from study.errors import FAILED
from tests.border.hostile import Hostile, table
from tests.support.made_up_studies import write_study_file

Make = Callable[[Path, Path], list[str]]
SHARED = ("--set", "storage=/shared/runs")
NO_STUDY = "must be a study's directory, which holds a study.yaml"
LONG = "x" * 5000


def line(*words: str) -> Make:
    """Returns a maker of a command line, in which STUDY is a good study file, FOLDER its folder, and NONE nothing."""

    def make(folder: Path, model: Path) -> list[str]:
        study = write_study_file(folder, model)
        (folder / "empty").mkdir()
        os.mkfifo(folder / "fifo")
        places = {"STUDY": str(study), "FOLDER": str(folder), "EMPTY": str(folder / "empty")}
        places |= {"FIFO": str(folder / "fifo"), "NONE": str(folder / "none")}
        return [places.get(word, word) for word in words]

    return make


def row(name: str, words: tuple[str, ...], *said: str, **bounds: int) -> Hostile:
    return Hostile(name, line(*words), said, unsaid=("usage:",), **bounds)  # type: ignore[arg-type]


@table(
    row("no command", (), "required: COMMAND", "--help` says"),
    row("no such command", ("fly",), "invalid choice: 'fly'", "'doctor'"),
    row("no study file", ("plan",), "required: STUDY.yaml", "plan --help` says"),
    row("two study files", ("plan", "STUDY", "more"), "unrecognized arguments: more"),
    row("no such option", ("run", "STUDY", "--fast"), "unrecognized arguments: --fast"),
    row("a million letters", ("run", "STUDY", "--" + "x" * 10**6), "unrecognized arguments: --xxx"),
    row("an empty study", ("plan", ""), "STUDY.yaml: must not be empty"),
    row("a blank study", ("plan", " "), "STUDY.yaml: must not be empty"),
    row("NUL in a path", ("plan", "a\0b"), "STUDY.yaml: must hold no NUL character"),
    row("a name too long", ("plan", LONG), "each of its names of at most 255"),
    row("a path too long", ("plan", "x/" * 3000), "at most 4,095 bytes"),
    row("a folder as study", ("plan", "EMPTY"), "must be a file that can be read; it is a folder"),
    row("a pipe as study", ("plan", "FIFO"), "must be a file that can be read; it is a named pipe"),
    row("a device as study", ("plan", "/dev/zero"), "it is a device", "Check its path"),
    row("random bytes as study", ("plan", "/dev/urandom"), "it is a device"),
    row("memory as study", ("plan", "/proc/self/mem"), "must be a file that can be read: Input/output error"),
    row("nothing as study", ("plan", "NONE"), "must be a file that is there. Check its path."),
    row("a card nobody knows", ("plan", "STUDY", "--gpu", "t5"), "hardware.gpu", "must be one of auto, cpu, t4"),
    row("an empty card", ("plan", "STUDY", "--gpu", ""), "--gpu: must not be empty"),
    row("a card of escapes", ("plan", "STUDY", "--gpu", "\x1b[31m"), "no control characters"),
    row("a card of YAML", ("plan", "STUDY", "--gpu", "{a: 1}"), 'hardware.gpu = "{a: 1}"', "must be one of"),
    row("empty cards", ("plan", "STUDY", "--gpus", ""), "--gpus: must not be empty"),
    row("no cards", ("plan", "STUDY", "--gpus", "0"), "hardware.gpus = 0", "from 1 to 10,000"),
    row("fewer cards than none", ("plan", "STUDY", "--gpus", "-1"), "hardware.gpus = -1", "from 1 to 10,000"),
    row("NaN cards", ("plan", "STUDY", "--gpus", "nan"), 'hardware.gpus = "nan"', "whole number"),
    row("cards of YAML's NaN", ("plan", "STUDY", "--gpus", ".nan"), "hardware.gpus = NaN", "whole number"),
    row("half a card", ("plan", "STUDY", "--gpus", "0.5"), "hardware.gpus = 0.5", "whole number"),
    row("cards of 400 digits", ("plan", "STUDY", "--gpus", "9" * 400), "at most 100 digits"),
    row("a list of cards", ("plan", "STUDY", "--gpus", "[1]"), "hardware.gpus = [1]", "whole number"),
    row("cards of a tag", ("plan", "STUDY", "--gpus", "!!python/x 1"), "is not allowed. Write the value without a tag"),
)
def test_plan(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)


@table(
    row("an empty out", ("run", "STUDY", "--out", ""), "--out: must not be empty"),
    row("out with NUL", ("run", "STUDY", "--out", "x\0"), "--out: must hold no NUL"),
    row("a file as out", ("run", "STUDY", "--out", "STUDY"), "must be a directory, and is a file"),
    row("a pipe as out", ("run", "STUDY", "--out", "FIFO"), "must be a directory, and is a file"),
    row("a study as out", ("run", "STUDY", "--out", "FOLDER"), "must not hold a study already", "resume"),
    row("out too long", ("run", "STUDY", "--out", f"/{LONG}"), "each of its names of at most 255"),
    row("resume nothing", ("resume", ""), "DIR: must not be empty"),
    row("resume an empty folder", ("resume", "EMPTY"), NO_STUDY),
    row("resume below the home", ("resume", "~/no such study"), f"{Path.home()}/no such study: {NO_STUDY}"),
    row("resume a file", ("resume", "STUDY"), NO_STUDY),
    row("resume a pipe", ("resume", "FIFO"), NO_STUDY),
    row("resume a device", ("resume", "/dev/zero"), NO_STUDY),
    row("resume a URL of nothing", ("resume", "file:///none/at/all"), "there is nothing at file:///none/at/all"),
    row("resume another scheme", ("resume", "ftp://x/y"), "must be readable and writable", "Check the URL"),
    row("confirm nothing", ("confirm", ""), "DIR: must not be empty"),
    row("confirm an empty folder", ("confirm", "EMPTY"), NO_STUDY),
    row("confirm what is not there", ("confirm", "NONE"), NO_STUDY),
    row("confirm a study without trials", ("confirm", "FOLDER"), "must have a complete trial"),
)
def test_run_resume_confirm(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)


@table(
    row("report nothing", ("report", ""), "DIR: must not be empty"),
    row("report an empty folder", ("report", "EMPTY"), NO_STUDY),
    row("report below the home", ("report", "~/no such study"), f"{Path.home()}/no such study: {NO_STUDY}"),
    row("report a device", ("report", "/dev/zero"), NO_STUDY),
    row("an empty budget", ("report", "FOLDER", "--budget", ""), "must be a number with a unit", "8GiB"),
    row("a budget without unit", ("report", "FOLDER", "--budget", "8"), "must be a number with a unit", "8GiB"),
    row("a budget of NaN", ("report", "FOLDER", "--budget", "nan GiB"), "must be a number with a unit"),
    row("a budget without end", ("report", "FOLDER", "--budget", "1e400 GiB"), "must be a number with a unit"),
    row("a budget below zero", ("report", "FOLDER", "--budget=-8GiB"), "must be a number with a unit"),
    row("a port below zero", ("report", "FOLDER", "--serve", "-1"), "from 0 to 65,535, not '-1'"),
    row("a port too high", ("report", "FOLDER", "--serve", "99999"), "from 0 to 65,535, not '99999'"),
    row("a port of letters", ("report", "FOLDER", "--serve", "http"), "from 0 to 65,535, not 'http'"),
    row("a port of 5000 digits", ("report", "FOLDER", "--serve", "9" * 5000), "from 0 to 65,535"),
    row("a port of other digits", ("report", "FOLDER", "--serve", "٨٠٨٠"), "from 0 to 65,535"),
    row("empty figures", ("report", "FOLDER", "--figures", ""), "--figures: must not be empty"),
    row(
        "figures into a file",
        ("report", "FOLDER", "--figures", "STUDY"),
        "must be a folder; a file lies there",
        "another folder for --figures",
    ),
    row("figures into a device", ("report", "FOLDER", "--figures", "/dev/null/x"), "is no folder", "for --figures"),
    row("export of nothing", ("export", "FOLDER", ""), "TRIAL: must not be empty"),
    row("export of no trial", ("export", "FOLDER", "t999"), "must be a trial of the study that has ended"),
    row("export from above", ("export", "FOLDER", "../../etc"), "must be a trial of the study that has ended"),
    row("export to nothing", ("export", "FOLDER", "t0", "--to", ""), "--to: must not be empty"),
    row("push to half a name", ("export", "FOLDER", "t0", "--push", "x"), "as OWNER/NAME"),
    row("push to three names", ("export", "FOLDER", "t0", "--push", "a/b/c"), "as OWNER/NAME"),
    row("compare nothing", ("compare",), "required: DIR"),
    row("compare an empty name", ("compare", ""), "DIR: must not be empty"),
    row("compare an empty folder", ("compare", "EMPTY", "EMPTY"), NO_STUDY),
    row("compare a device", ("compare", "/dev/null"), NO_STUDY),
    row("watch nothing", ("watch", ""), "DIR: must not be empty"),
    row("watch an empty folder", ("watch", "EMPTY"), NO_STUDY),
    row("watch a device", ("watch", "/dev/zero"), NO_STUDY),
)
def test_results(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)


@table(
    row("submit nothing", ("submit",), "STUDY.yaml: must be named, or --resume DIR"),
    row("submit a folder", ("submit", "EMPTY", *SHARED), "it is a folder"),
    row("submit a pipe", ("submit", "FIFO", *SHARED), "it is a named pipe"),
    row("submit with a lost storage", ("submit", "STUDY"), "a folder that all nodes have", "--set storage="),
    row("resume a relative job", ("submit", "--resume", "x"), "--resume", "an absolute path of the cluster, or a URL"),
    row("resume an empty job", ("submit", "--resume", ""), "--resume: must not be empty"),
    row("no image", ("submit", "STUDY", *SHARED, "--kubernetes"), "must name an image that holds this checkout"),
    row("no workers", ("submit", "STUDY", *SHARED, "--workers", "0"), "from 1 to 10,000, not '0'"),
    row("NaN workers", ("submit", "STUDY", *SHARED, "--workers", "nan"), "from 1 to 10,000, not 'nan'"),
    row("an empty address", ("status", "--address", ""), "--address: must not be empty"),
    row(
        "another scheme", ("status", "--address", "ftp://x"), "https:// URL of a cluster's dashboard", "127.0.0.1:8265"
    ),
    row("Ray's client", ("status", "--address", "ray://x:10001"), "https:// URL of a cluster's dashboard"),
    row("a word as address", ("status", "--address", "nonsense"), "https:// URL of a cluster's dashboard"),
    row("a port too high", ("status", "--address", "http://x:99999"), "https:// URL of a cluster's dashboard"),
    row("half an IPv6", ("status", "--address", "http://[::1"), "https:// URL of a cluster's dashboard"),
    row("no host", ("status", "--address", "http://"), "https:// URL of a cluster's dashboard"),
    row("a job of nothing", ("logs", ""), "JOB: must not be empty"),
    row("a URL of no place", ("status", "s3://"), "must be a URL with a place in it"),
    row("fetch a URL of no place", ("fetch", "gs://"), "must be a URL with a place in it"),
    row("fetch into nothing", ("fetch", "file:///none", "--out", ""), "--out: must not be empty"),
    row("status of an empty folder", ("status", "EMPTY"), "study.yaml must be there; it is missing"),
    row(
        "nobody there", ("logs", "j", "--address", "http://127.0.0.1:1"), "must respond", "none does", exit_code=FAILED
    ),
    row("nobody to stop", ("stop", "j", "--address", "http://127.0.0.1:1"), "must respond", exit_code=FAILED),
    row("fetch what is not here", ("fetch", "/none"), "must be seen from this machine", exit_code=FAILED),
)
def test_cluster(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)
