"""Runs `python -m study` as a process, which exits with the command's code."""

import signal
import sys

from study.cli.main import main

if __name__ == "__main__":
    exit_code = main()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # only clean-up is left, which a second Ctrl-C must not tear
    sys.exit(exit_code)
