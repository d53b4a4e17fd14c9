"""What a study knows of its cluster: the nodes to come, and what to say of a folder that they do not share."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import yaml

from study.cluster.nodes import autoscaler_config, promised_nodes, runtime_env, unshared_text
from study.plan.shares import Node, plan_phases
from tests.test_cluster_files import CLOUDS, cluster
from trainables.settings import HardwareSettings

HEAD, T4 = Node(0.0, 0.0), Node(4.0, 1.0)
CONFIG = {
    "max_workers": 3,
    "head_node_type": "head",
    "available_node_types": {
        "head": {"resources": {"CPU": 0}, "max_workers": 0},
        "t4": {"resources": {"CPU": 4, "GPU": 1}, "min_workers": 0, "max_workers": 2},
        "two": {"resources": {"CPU": 8, "GPU": 2}, "min_workers": 0, "max_workers": 2},
    },
}


@pytest.mark.parametrize(
    ("living", "promised"),
    [
        ([HEAD], [T4, T4, Node(8.0, 2.0)]),  # the cluster's own bound cuts the last kind
        ([HEAD, T4], [T4, Node(8.0, 2.0)]),
        ([HEAD, T4, T4], [Node(8.0, 2.0)]),
        ([HEAD, T4, T4, Node(8.0, 2.0)], []),
        ([HEAD, T4, T4, T4, T4], []),  # more than promised, by hand
    ],
)
def test_nodes_to_come_are_what_lives_short_of_the_most(living: list[Node], promised: list[Node]) -> None:
    assert list(promised_nodes(CONFIG, living)) == promised


def test_without_an_autoscaler_nothing_is_promised(tmp_path: Path) -> None:
    assert promised_nodes({}, [HEAD]) == ()
    assert autoscaler_config(tmp_path / "ray_bootstrap_config.yaml") == {}
    (tmp_path / "other.yaml").write_text("- a list\n")
    assert autoscaler_config(tmp_path / "other.yaml") == {}


@pytest.mark.parametrize("name", CLOUDS)
def test_a_study_for_cards_is_planned_while_no_worker_runs_yet(name: str, tmp_path: Path) -> None:
    file = tmp_path / "ray_bootstrap_config.yaml"
    file.write_text(yaml.safe_dump(cluster(name)))
    nodes = (HEAD, *promised_nodes(autoscaler_config(file), [HEAD]))
    assert nodes == (HEAD, T4, T4, T4, T4)
    (phase,) = plan_phases({"nf4": 16}, nodes, HardwareSettings(gpu="t4"), True)
    assert phase.places == 16
    assert phase.resources == {"CPU": 0.0, "GPU": 0.25}


def test_code_goes_to_a_cluster_and_not_where_it_is_already(tmp_path: Path) -> None:
    assert runtime_env("local", {}, tmp_path) == {}
    assert runtime_env("10.0.0.1:6379", {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}, tmp_path) == {}
    assert not list(tmp_path.iterdir())
    package = Path(runtime_env("10.0.0.1:6379", {}, tmp_path)["working_dir"])
    assert package.parent == tmp_path
    assert {"study/run/driver.py", "trainables/actors/lora_trial.py"} <= set(zipfile.ZipFile(package).namelist())


def test_a_folder_that_nodes_do_not_see_is_said_with_the_remedy() -> None:
    text = unshared_text(Path("/home/me/runs/x"), ["10.0.0.7"])
    assert "node 10.0.0.7 does not see /home/me/runs/x" in text
    assert "s3://BUCKET/PREFIX" in text
    assert "nodes 10.0.0.7, 10.0.0.8 do not see" in unshared_text(Path("/x"), ["10.0.0.7", "10.0.0.8"])
