"""Output that nobody reads, and output that cannot be written in the terminal's letters."""

from __future__ import annotations

import subprocess
import sys

from study.checkout import CHECKOUT


def run_python(script: str, **options: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", script]
    return subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)  # type: ignore[call-overload,no-any-return]


def test_a_closed_pipe_ends_the_words_and_not_the_work() -> None:
    script = (
        "import sys, time\n"
        "from study.output import say\n"
        "say('first')\n"
        "sys.stdin.read()\n"  # until the reader has gone
        "[say('more ' * 1000) for _ in range(100)]\n"
        "print('the work went on', file=sys.stderr)"
    )
    process = run_python(script, stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"first\n"
    process.stdout.close()
    process.stdin.close()
    assert process.wait(60) == 0
    assert process.stderr.read() == b"the work went on\n"
    process.stderr.close()


def test_letters_that_the_encoding_lacks_become_question_marks() -> None:
    script = "from study.output import say, tolerate_encodings\ntolerate_encodings()\nsay('at least 5 s – done')"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=CHECKOUT,
        capture_output=True,
        env={"PYTHONIOENCODING": "ascii"},
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, b"at least 5 s ? done\n")
