"""The RayJob manifest, against the fields of KubeRay's RayJob v1."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from study.cli.main import main
from study.cluster.job_request import job_request
from study.cluster.kubernetes import object_name, ray_job_text
from study.config.study_config import ConfigError, StudyConfig, load_study
from tests.support.made_up_studies import write_study_file

NOW = datetime(2026, 1, 31, 12, 0, 5)
# https://github.com/ray-project/kuberay/blob/master/docs/reference/api.md
JOB_FIELDS = {
    "entrypoint", "runtimeEnvYAML", "metadata", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished",
    "rayClusterSpec",
}  # fmt: skip
CLUSTER_FIELDS = {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"}
GROUP_FIELDS = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}


@pytest.fixture
def config(tmp_path: Path) -> StudyConfig:
    return load_study(write_study_file(tmp_path, "org/model"))


def manifest(config: StudyConfig, storage: str = "/shared/runs", workers: int = 3) -> tuple[Any, Any]:
    text = ray_job_text(config, job_request(config, storage, NOW), workers, "registry/lora-frontier:1")
    study_map, job = yaml.safe_load_all(text)
    return study_map, job


def container(group: dict[str, Any]) -> dict[str, Any]:
    (only,) = group["template"]["spec"]["containers"]
    return dict(only)


def test_the_fields_are_ray_jobs_own(config: StudyConfig) -> None:
    _, job = manifest(config)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert set(job["spec"]) == JOB_FIELDS
    cluster = job["spec"]["rayClusterSpec"]
    assert set(cluster) == CLUSTER_FIELDS
    assert set(cluster["headGroupSpec"]) == {"rayStartParams", "template"}
    (workers,) = cluster["workerGroupSpecs"]
    assert set(workers) == GROUP_FIELDS
    assert (workers["replicas"], workers["minReplicas"], workers["maxReplicas"]) == (3, 3, 3)
    assert all(isinstance(value, str) for value in cluster["headGroupSpec"]["rayStartParams"].values())
    assert re.fullmatch(r"2\.\d+\.\d+", cluster["rayVersion"])


def test_the_job_runs_the_study_that_the_config_map_holds(config: StudyConfig, tmp_path: Path) -> None:
    study_map, job = manifest(config)
    file = tmp_path / "there.yaml"
    file.write_text(study_map["data"]["study.yaml"])
    assert load_study(file) == config
    assert job["spec"]["entrypoint"].startswith("python -m study run /study/study.yaml --out /shared/runs/made-up-")
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]
    assert {"name": "study", "configMap": {"name": study_map["metadata"]["name"]}} in head["template"]["spec"][
        "volumes"
    ]
    assert {"name": "study", "mountPath": "/study"} in container(head)["volumeMounts"]
    environment = yaml.safe_load(job["spec"]["runtimeEnvYAML"])["env_vars"]
    assert environment["PYTHONPATH"] == "/home/ray/lora-frontier"


def test_workers_have_a_card_and_the_head_has_none(config: StudyConfig) -> None:
    cluster = manifest(config)[1]["spec"]["rayClusterSpec"]
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"][0]
    assert container(workers)["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in container(head)["resources"]["limits"]
    assert head["rayStartParams"]["num-cpus"] == "0"


def test_tokens_come_from_secrets_and_ray_asks_for_one(config: StudyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijk")
    study_map, job = manifest(config)
    assert "hf_abc" not in yaml.safe_dump([study_map, job])
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    (token,) = [one for one in container(cluster["headGroupSpec"])["env"] if one["name"] == "HF_TOKEN"]
    assert token["valueFrom"]["secretKeyRef"] == {"name": "hf-token", "key": "token", "optional": True}


def test_a_folder_is_a_claim_that_all_nodes_mount_and_a_bucket_needs_none(config: StudyConfig) -> None:
    def claims(storage: str) -> list[str]:
        cluster = manifest(config, storage)[1]["spec"]["rayClusterSpec"]
        groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
        volumes = [volume for group in groups for volume in group["template"]["spec"]["volumes"]]
        return [volume["persistentVolumeClaim"]["claimName"] for volume in volumes if "persistentVolumeClaim" in volume]

    assert claims("/shared/runs") == ["lora-frontier-shared"] * 2
    assert claims("s3://bucket/runs") == []


def test_an_image_and_workers_are_needed(config: StudyConfig) -> None:
    with pytest.raises(ConfigError) as caught:
        ray_job_text(config, job_request(config, "/shared/runs", NOW), 0, None)
    assert [fault.file for fault in caught.value.faults] == ["--image", "--workers"]
    assert "Dockerfile" in str(caught.value)


@pytest.mark.parametrize("name", ["made-up-20260131-120005", "My_Study.v2", "0abc", "x" * 200, "-_.", "Ünï"])
def test_names_are_kubernetes_names(name: str) -> None:
    assert re.fullmatch(r"[a-z]([a-z0-9-]{0,48}[a-z0-9])?", object_name(name))


def test_the_command_prints_the_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_study_file(tmp_path, "org/model")
    assert main(["submit", str(file), "--set", "storage=/shared/runs", "--kubernetes", "--image", "a/b"]) == 0
    kinds = [document["kind"] for document in yaml.safe_load_all(capsys.readouterr().out)]
    assert kinds == ["ConfigMap", "RayJob"]
