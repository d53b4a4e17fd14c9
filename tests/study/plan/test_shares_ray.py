"""The plan's shares in Ray's own hands: trivial Tune trials on fake cards, on one machine.

One Ray serves all tests: a node of four cards and four nodes of one card. A pinch of a resource that only those nodes
have keeps a test's trials on its nodes.
"""

import time
import uuid
from collections import Counter
from collections.abc import Iterator

import pytest

from study.plan.places import AdapterBytes
from study.plan.shares import Demand, Node, Phase, plan_demands, plan_phases
from trainables.settings import HardwareSettings

GPU = HardwareSettings(gpu="t4")
FOUR_CARDS, FOUR_NODES = (Node(1, 4),), (Node(1, 1),) * 4
PATIENCE_SECONDS = 120.0  # of a trial that waits for company
PINCH = 0.001
ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@pytest.fixture(scope="module")
def ray_of_five_nodes() -> Iterator[None]:
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as environment:
        for name, value in ENVIRONMENT.items():
            environment.setenv(name, value)
        cluster = Cluster()
        small = {"include_dashboard": False, "object_store_memory": 80 * 2**20}
        cluster.add_node(num_cpus=1, num_gpus=4, resources={"one_node": 1}, **small)
        for _ in range(4):
            cluster.add_node(num_cpus=0, num_gpus=1, resources={"four_nodes": 1}, **small)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield
        ray.shutdown()
        cluster.shutdown()


def run_trials(phase: Phase, nodes: str, folder) -> list[dict]:
    """Runs the phase's trials; returns for each the card (node and number) and when it was there.

    Nobody leaves before as many have come as the phase has places, so that they are seen side by side.
    """
    from ray import tune

    came = folder / "came"
    came.mkdir()
    places = phase.places

    def trial(config):
        import ray

        start, numbers = time.time(), ray.get_gpu_ids()
        (came / str(uuid.uuid4())).touch()
        while len(list(came.iterdir())) < places and time.time() < start + PATIENCE_SECONDS:
            time.sleep(0.05)
        time.sleep(0.2)
        card = f"{ray.get_runtime_context().get_node_id()}/{sorted(numbers)}"
        tune.report({"card": card, "cards": len(numbers), "start": start, "end": time.time()})

    bundle = {**phase.resources, nodes: PINCH}
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TUNE_MAX_PENDING_TRIALS_PG", str(places))
        results = tune.Tuner(
            tune.with_resources(trial, tune.PlacementGroupFactory([bundle])),
            tune_config=tune.TuneConfig(num_samples=phase.trials, max_concurrent_trials=places, reuse_actors=True),
            run_config=tune.RunConfig(storage_path=str(folder / "tune"), verbose=0),
        ).fit()
    assert not results.errors
    return [result.metrics for result in results]


def most_at_once(trials: list[dict]) -> list[int]:
    """The highest number of trials that were on each card at the same time."""
    most: Counter = Counter()
    for trial in trials:
        there = [other for other in trials if other["card"] == trial["card"]]
        at_once = sum(other["start"] <= trial["start"] < other["end"] for other in there)
        most[trial["card"]] = max(most[trial["card"]], at_once)
    return sorted(most.values())


def test_the_grid_uses_the_four_cards_of_one_node(ray_of_five_nodes, tmp_path):
    (phase,) = plan_phases({"nf4": 4}, FOUR_CARDS, GPU, use_gpu=True)
    assert most_at_once(run_trials(phase, "one_node", tmp_path)) == [1, 1, 1, 1]


def test_the_grid_uses_the_cards_of_four_nodes(ray_of_five_nodes, tmp_path):
    (phase,) = plan_phases({"nf4": 4}, FOUR_NODES, GPU, use_gpu=True)
    assert most_at_once(run_trials(phase, "four_nodes", tmp_path)) == [1, 1, 1, 1]


def test_many_trials_fill_a_card_and_no_more(ray_of_five_nodes, tmp_path):
    hardware = HardwareSettings(gpu="t4", gpus=1)
    (phase,) = plan_demands([Demand("nf4", 64, (AdapterBytes(2),), 9)], FOUR_CARDS, hardware, True)
    trials = run_trials(phase, "one_node", tmp_path)
    assert len(trials) == 64
    assert most_at_once(trials) == [4]


def test_a_base_over_two_cards_takes_both_and_leaves_two_to_another(ray_of_five_nodes, tmp_path):
    (phase,) = plan_demands([Demand("fp16", 2, cards=2)], FOUR_CARDS, GPU, True)
    trials = run_trials(phase, "one_node", tmp_path)
    assert [trial["cards"] for trial in trials] == [2, 2]
    assert len({trial["card"] for trial in trials}) == 2
