"""Output that nobody reads, and output that cannot be written in the terminal's letters."""

from __future__ import annotations

import subprocess
import sys

import pytest

from study.checkout import CHECKOUT
from study.output import aligned, plural, resume_command


def run_python(script: str, **options: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", script]
    return subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)  # type: ignore[call-overload,no-any-return]


def test_a_closed_pipe_ends_the_words_and_not_the_work() -> None:
    script = (
        "import sys, time\n"
        "from study.output import say\n"
        "say('first')\n"
        "sys.stdin.read()\n"  # until the reader has ended
        "[say('more ' * 1000) for _ in range(100)]\n"
        "print('the work continued', file=sys.stderr)"
    )
    process = run_python(script, stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"first\n"
    process.stdout.close()
    process.stdin.close()
    assert process.wait(60) == 0
    assert process.stderr.read() == b"the work continued\n"
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


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 trials"), (1, "1 trial"), (2, "2 trials"), (1234, "1,234 trials")]
)
def test_a_number_with_its_noun(number: int, words: str) -> None:
    assert plural(number, "trial") == words


def test_a_table_is_aligned_left_and_right() -> None:
    assert aligned(["id", "name", "GiB"], [["t0", "long name", "1.5"], ["t1", "x", "10"]]) == "\n".join(
        [
            "  id   name        GiB",
            "  t0   long name   1.5",
            "  t1   x            10",
        ]
    )


def test_a_directory_with_spaces_can_be_copied_from_the_command() -> None:
    assert resume_command("runs/my study") == "python -m study resume 'runs/my study'"
