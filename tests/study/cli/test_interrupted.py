"""Ctrl-C while the program is still being read: in words, without a traceback."""

from __future__ import annotations

import subprocess
import sys

READ = """
import runpy, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "study.cli.main":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
runpy.run_module("study", run_name="__main__")
"""


def test_an_interrupt_of_the_imports_is_told_in_a_word() -> None:
    ended = subprocess.run([sys.executable, "-c", READ], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", "Interrupted.\n")
