"""The scale benchmark's own arithmetic, and its simulated hosts without a cluster."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import Any

import pytest

from study.run.recorder import record_of
from tests.benchmarks.support.scale_measures import Sample, Times, covered, driver_ms, part_of, spent_between
from tests.benchmarks.support.simulated_hosts import EVALUATIONS, TOTAL_STEPS, SimulatedHosts
from tests.support.made_up_studies import make_config
from trainables.protocol import JoinRequest, News, NotResidentError

CARD = ("node", ("0",))


class Keeper:
    """Takes the hosts' words, and does nothing with them."""

    @property
    def note_statuses(self) -> Any:
        return self

    def remote(self, *words: Any) -> None:
        return None


@pytest.mark.parametrize(
    ("intervals", "length"),
    [([], 0), ([(0, 2), (1, 3)], 3), ([(5, 6), (0, 2)], 3), ([(0, 9), (1, 2), (3, 4)], 9), ([(4, 1), (2, 2)], 0)],
)
def test_what_intervals_cover(intervals: list[tuple[float, float]], length: float) -> None:
    assert covered(intervals) == length


def test_the_window_is_from_when_all_places_are_taken_until_the_last_trial_is_given_out() -> None:
    pieces = [("a", 0.0, 2.0, "t0"), ("a", 3.0, 9.0, "t0"), ("a", 10.0, 20.0, "t2"), ("b", 3.0, 11.0, "t1")]
    pieces += [("b", 12.0, 30.0, "t3"), ("a", 20.0, 25.0, "t4")]
    times = Times(pieces)
    assert times.window(2) == (3.0, 20.0)
    assert times.window(3) == (20.0, 20.0)  # so many were never at work at once
    # Of 17 s each, card a waited from 9 to 10, and card b from 11 to 12.
    assert times.idle_share(2, 3.0, 20.0) == pytest.approx(2 / 34)
    assert times.idle_share(4, 3.0, 20.0) == pytest.approx(2 / 68 + 0.5)  # a card that never got a trial idles
    assert times.idle_share(2, 5.0, 5.0) is None
    waits = times.waits()
    assert waits["after a report"] == {"median": 1000.0, "mean": 1000.0, "95 %": 1000.0, "largest": 1000.0}
    assert waits["between trials"] == {"median": 1000.0, "mean": 666.7, "95 %": 1000.0, "largest": 1000.0}


def test_a_results_cost_is_the_drivers_own_time() -> None:
    samples = [Sample(float(second), {"driver": 0.1 * second, "Ray": 9.0}, 0, 0.5) for second in range(21)]
    times = Times([("a", second, second + 1.0, "t0") for second in range(20)])
    parts, seconds = spent_between(samples, 0.1, 9.8)
    assert (parts["driver"], parts["Ray"], seconds) == (pytest.approx(1.0), 0.0, 10.0)
    assert driver_ms(times, samples, 5.0, 15.0) == pytest.approx(100.0)


def test_parts_are_told_by_process_titles() -> None:
    titles = ["ray::SimulatedHosts.advance", "ray::HostKeeper", "ray::LoraTrial.train()", "/x/raylet/raylet --port=1"]
    assert [part_of([title]) for title in titles] == ["simulated hosts", "keeper", "trials", "Ray"]


def test_a_simulated_trial_reports_waits_to_be_asked_and_ends_with_a_record() -> None:
    async def live() -> tuple[list[News], dict[str, Any], float]:
        hosts = SimulatedHosts(Keeper(), 0.2)
        await hosts.join(CARD, JoinRequest("t0", 0, make_config()), None)
        first = await hosts.advance("t0", 0, 0, 5.0)
        await asyncio.sleep(0.3)  # its trial is silent: nothing else happens
        news, seen = [first], 1
        while not news[-1].outcome:
            news.append(await hosts.advance("t0", 0, seen, 5.0))
            seen += len(news[-1].reports)
        told = await hosts.told()
        await hosts.leave("t0", 0)
        with pytest.raises(NotResidentError):
            await hosts.advance("t0", 0, seen, 5.0)
        return news, told, 0.3

    news, told, silence = asyncio.run(live())
    reports = [report for one in news for report in one.reports]
    assert [report.step for report in reports] == [TOTAL_STEPS * n // EVALUATIONS for n in range(1, EVALUATIONS + 1)]
    assert len(told["pieces"]) == EVALUATIONS + 1
    assert told["pieces"][1][1] - told["pieces"][0][2] >= silence
    outcome = json.loads(json.dumps(asdict(news[-1].outcome)))  # as a result carries it
    assert record_of("simulated", "t0", make_config(), outcome).measurements["perplexity"] == reports[-1].perplexity
