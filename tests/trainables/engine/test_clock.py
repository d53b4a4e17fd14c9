"""Where a host's time goes."""

import pytest

from trainables.engine.clock import HostClock
from trainables.timeline import timeline


def test_nothing_is_counted_before_the_first_pack():
    clock = HostClock()
    clock.note("measuring", 0.0, 5.0)
    assert clock.seconds(9.0) == {}


def test_time_of_no_work_was_spent_waiting():
    clock = HostClock()
    clock.note("measuring", 0.0, 5.0)
    clock.note("training", 6.0, 8.0)
    clock.note("evaluating", 8.5, 9.0)
    clock.note("training", 9.0, 10.0)
    assert clock.seconds(11.0) == {"training": 3.0, "evaluating": 0.5, "waiting": 1.5, "all": 5.0}


def test_work_is_a_stage_of_the_processs_time_line_too_also_where_it_fails():
    timeline.begin("host 1")
    clock = HostClock()
    with clock.at_work("measuring"), timeline.stage("footprint"):
        pass
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), clock.at_work("training"):
            _ = 1 / 0
    found = {one.name: one.times for one in timeline.stages()}
    assert found == {"measuring": 1, "measuring / footprint": 1, "training": 2}
    assert set(clock.seconds(1e12)) == {"training", "waiting", "all"}
