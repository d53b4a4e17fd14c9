"""What memory depends on: an adapter's load, and the rows of a pass."""

from search_spaces.trial_config import TrialConfig
from tests.support.trainables.memory_cases import Q_V
from trainables.memory.setting import AdapterLoad, Pass


def test_a_load_is_a_configurations():
    config = TrialConfig("nf4", 8, 16, 0.05, Q_V, 1e-4)
    assert AdapterLoad.of(config, 2, 100) == AdapterLoad(8, Q_V, True, 2, 100, 200)


def test_a_pass_is_padded_to_its_longest_row():
    loads = (AdapterLoad(8, Q_V, False, 2, 100, 150), AdapterLoad(4, Q_V, True, 3, 60, 20))
    one = Pass(loads)
    assert (one.rows, one.width, one.tokens, one.targets) == (5, 100, 500, 170)
    assert (Pass().rows, Pass().width, Pass().tokens, Pass().targets) == (0, 0, 0, 0)
