"""Where a host's time goes."""

from trainables.engine.clock import HostClock


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
