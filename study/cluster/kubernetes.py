"""Writes a study as a RayJob of KubeRay: the manifest that `kubectl apply` takes."""

from __future__ import annotations

import re
import shlex
from importlib import metadata
from typing import Any

import yaml

from study.cluster.job_request import JobRequest
from study.config.paths import is_url
from study.config.study_config import StudyConfig, to_yaml_text
from study.errors import ConfigError, ConfigFault
from study.records.layout import STUDY_FILE

CHECKOUT = "/home/ray/lora-frontier"  # of the image; it is found on every node as the image has it
STUDY_FOLDER = "/study"
SHARED_CLAIM = "lora-frontier-shared"  # a claim that many nodes may mount (ReadWriteMany), made beforehand
HUB_SECRET = "hf-token"  # optional, with the key `token`
LONGEST_NAME = 47  # KubeRay adds to it, and Kubernetes takes 63
HEAD = {"cpu": "2", "memory": "8Gi"}
WORKER = {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "1"}


def ray_job_text(config: StudyConfig, request: JobRequest, workers: int, image: str | None) -> str:
    """Returns the study file as a ConfigMap, and the RayJob that runs it on `workers` nodes of one card each, as YAML.

    The cluster is made for the job and removed after it; token authentication is on (KubeRay 1.5.1 or later).
    Raises ConfigError where no image is given, or no worker.
    """
    _check(workers, image)
    name = object_name(request.job_id)
    documents = [_study_map(name, config), _ray_job(name, request, workers, str(image))]
    return yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True, width=120).rstrip()


def object_name(text: str) -> str:
    """Returns the text as a Kubernetes name, with its end kept: small letters, digits and dashes, a letter first."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[-LONGEST_NAME:].lstrip("-")
    return plain if plain[:1].isalpha() else f"s-{plain}".rstrip("-")


def _check(workers: int, image: str | None) -> None:
    faults = []
    if not image:
        remedy = f"Build one from `study/Dockerfile`, push it, and give its name. It has the checkout at {CHECKOUT}."
        faults.append(ConfigFault("--image", "", image, "must name an image that holds this checkout", remedy))
    if workers < 1:
        faults.append(
            ConfigFault("--workers", "", workers, "must be 1 or more", "Give the number of nodes with a card.")
        )
    if faults:
        raise ConfigError(faults)


def _study_map(name: str, config: StudyConfig) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {STUDY_FILE: to_yaml_text(config)},
    }


def _ray_job(name: str, request: JobRequest, workers: int, image: str) -> dict[str, Any]:
    command = ["python", "-m", "study", "run", f"{STUDY_FOLDER}/{STUDY_FILE}", "--out", _out(request)]
    environment = {**request.environment, "PYTHONPATH": CHECKOUT}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": name},
        "spec": {
            "entrypoint": shlex.join(command),
            "runtimeEnvYAML": yaml.safe_dump({"env_vars": environment}),
            "metadata": dict(request.metadata),
            "backoffLimit": 0,  # a study that broke off continues with `resume`, not from its beginning
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 600,
            "rayClusterSpec": _cluster(name, request, workers, image),
        },
    }


def _cluster(name: str, request: JobRequest, workers: int, image: str) -> dict[str, Any]:
    head = _group("ray-head", name, request, image, HEAD)
    worker = _group("ray-worker", name, request, image, WORKER)
    worker["spec"]["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    group = {"groupName": "t4", "replicas": workers, "minReplicas": workers, "maxReplicas": workers}
    return {
        "rayVersion": metadata.version("ray"),
        "authOptions": {"mode": "token"},
        "headGroupSpec": {"rayStartParams": {"num-cpus": "0"}, "template": head},
        "workerGroupSpecs": [{**group, "rayStartParams": {}, "template": worker}],
    }


def _group(kind: str, name: str, request: JobRequest, image: str, resources: dict[str, str]) -> dict[str, Any]:
    token = {"secretKeyRef": {"name": HUB_SECRET, "key": "token", "optional": True}}
    volumes, mounts = _volumes(name, request)
    container = {
        "name": kind,
        "image": image,
        "resources": {"limits": dict(resources), "requests": dict(resources)},
        "env": [{"name": "HF_TOKEN", "valueFrom": token}, *_caches(request)],
        "volumeMounts": mounts,
    }
    return {"spec": {"containers": [container], "volumes": volumes}}


def _volumes(name: str, request: JobRequest) -> tuple[list[Any], list[Any]]:
    volumes: list[Any] = [{"name": "study", "configMap": {"name": name}}]
    mounts: list[Any] = [{"name": "study", "mountPath": STUDY_FOLDER}]
    if not is_url(request.directory):
        volumes.append({"name": "shared", "persistentVolumeClaim": {"claimName": SHARED_CLAIM}})
        mounts.append({"name": "shared", "mountPath": _shared(request)})
    return volumes, mounts


def _caches(request: JobRequest) -> list[Any]:
    """Caches on the shared volume outlive the cluster; without one, each node fetches for itself."""
    if is_url(request.directory):
        return []
    places = {"HF_HOME": "huggingface", "LORA_FRONTIER_CACHE": "lora-frontier"}
    return [{"name": name, "value": f"{_shared(request)}/cache/{folder}"} for name, folder in places.items()]


def _shared(request: JobRequest) -> str:
    """The top folder of the study's directory, which the shared volume is mounted at: `/shared` of `/shared/runs/x`."""
    return "/" + request.directory.split("/")[1]


def _out(request: JobRequest) -> str:
    return request.job_id if is_url(request.directory) else request.directory
