"""Prints the report to PDF with the Chromium or Chrome of this machine: `report DIR --pdf`."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from study.errors import ConfigError, ConfigFault
from study.records.layout import PDF_FILE

BROWSERS = (
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge", "msedge",
)  # fmt: skip
BROWSER_VARIABLE = "LORA_FRONTIER_BROWSER"
SECONDS = 120
FLAGS = (
    "--headless", "--disable-gpu", "--no-first-run", "--no-pdf-header-footer", "--disable-extensions",
    "--virtual-time-budget=10000",  # until the figures are drawn
)  # fmt: skip
REMEDY = (
    "Install Chromium (Debian, Ubuntu: apt-get install chromium), or name a browser of its kind in "
    f"{BROWSER_VARIABLE}; or open report.html and print it to PDF from there."
)


def print_report(report: Path) -> Path:
    """Prints the page to `report.pdf` beside it, whole or not at all, and returns that file.

    Raises ConfigError where this machine has no browser for it, or the browser prints nothing.
    """
    browser, pdf = find_browser(), report.absolute().with_name(PDF_FILE)
    with tempfile.TemporaryDirectory(prefix="lora-frontier-") as profile:
        printed = pdf.with_name(f".{PDF_FILE}.{os.getpid()}")
        try:
            said = _print(browser, report.absolute(), printed, profile)
            if not (printed.exists() and printed.read_bytes().startswith(b"%PDF")):
                raise _fault(browser, f"must print the report; it wrote no PDF{said}")
            os.replace(printed, pdf)
        finally:
            printed.unlink(missing_ok=True)
    return pdf


def find_browser() -> str:
    """The browser that is named in the environment, else the first on the path. Raises ConfigError without one."""
    named = os.environ.get(BROWSER_VARIABLE)
    found = [shutil.which(name) for name in ((named,) if named else BROWSERS)]
    browser = next((each for each in found if each), None)
    if browser is None:
        looked = named or ", ".join(BROWSERS)
        raise _fault(looked, "must be a browser on the path that can print; there is none")
    return browser


def _print(browser: str, report: Path, printed: Path, profile: str) -> str:
    """Runs the browser and returns the last that it said, for an error message where it wrote nothing."""
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    flags = (*FLAGS, *(("--no-sandbox",) if root else ()))  # as root Chromium refuses to start with its sandbox
    command = [browser, *flags, f"--user-data-dir={profile}", f"--print-to-pdf={printed}", report.as_uri()]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f" within {SECONDS} s"
    except OSError as error:
        return f" ({error.strerror})"
    lines = done.stderr.strip().splitlines()
    return f" (exit code {done.returncode}{': ' + lines[-1] if lines else ''})"


def _fault(value: str, rule: str) -> ConfigError:
    return ConfigError([ConfigFault("--pdf", "browser", value, rule, REMEDY)])
