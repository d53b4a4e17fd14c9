"""Runs `python -m study` as a process, which exits with the command's code."""

import signal
import sys

try:
    from study.cli.main import main
except KeyboardInterrupt:  # the command's own words for it are not there yet
    sys.exit("Interrupted.")

if __name__ == "__main__":
    exit_code = main()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # only clean-up is left, which a second Ctrl-C must not tear
    sys.exit(exit_code)
