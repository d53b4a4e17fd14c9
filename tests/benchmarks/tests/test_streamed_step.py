"""The benchmark of streamed layers from end to end, on a processor."""

import pytest

from tests.benchmarks.streaming.streamed_step import arguments, measure, table

TINY = "--device cpu --model tiny --tokens 8 --adapters 2 --rounds 1 --steps 1 --embedding"


@pytest.mark.parametrize(
    "own", ["--precision fp32 --streamed 0 1 all --new-tokens 2", "--precision nf4 --streamed 0 4"]
)
def test_losses_are_those_of_the_resident_run(own: str) -> None:
    settings = measure(arguments([*TINY.split(), *own.split()]))
    assert settings[0].equal is None
    assert all(one.equal for one in settings[1:])
    assert settings[-1].copied_bytes > settings[0].copied_bytes == 0
    lines = table(settings).splitlines()
    assert [line.split()[-1] for line in lines] == ["losses", "first", *["equal"] * (len(settings) - 1)]


def test_another_loss_shows() -> None:
    settings = measure(arguments([*TINY.split(), "--precision", "fp32", "--streamed", "0"]))
    settings[0].equal = False
    assert table(settings).splitlines()[1].endswith("NOT EQUAL")
