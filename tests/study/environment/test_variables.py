"""The environment's variables: what people set passes, nonsense is named with its variable."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from study.environment.variables import variable_faults


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CUDA_VISIBLE_DEVICES", ""), ("CUDA_VISIBLE_DEVICES", "0"), ("CUDA_VISIBLE_DEVICES", "1,0"),
        ("CUDA_VISIBLE_DEVICES", "-1"), ("CUDA_VISIBLE_DEVICES", "none"), ("CUDA_VISIBLE_DEVICES", "NoDevFiles"),
        ("CUDA_VISIBLE_DEVICES", "GPU-5a1b2c3d-1234-5678-9abc-def012345678"),
        ("CUDA_VISIBLE_DEVICES", "MIG-GPU-5a/1/2"),
        ("OMP_NUM_THREADS", "2"), ("OMP_NUM_THREADS", "4,2"), ("OMP_NUM_THREADS", ""), ("MKL_NUM_THREADS", "16"),
        ("http_proxy", "http://proxy.example:3128"), ("HTTPS_PROXY", "proxy.example:3128"),
        ("ALL_PROXY", "socks5h://p:1"),
        ("https_proxy", "http://user:p%40ss@proxy.example:3128"), ("no_proxy", "localhost,.example"),
        ("RAY_memory_monitor_refresh_ms", "0"), ("RAY_memory_usage_threshold", "0.98"), ("RAY_DEDUP_LOGS", "0"),
        ("RAY_gcs_server_port_wait_time_s", "120"), ("RAY_health_check_timeout_ms", "-1"), ("RAY_AUTH_MODE", "token"),
        ("HF_HOME", "/none/at/all"), ("LORA_FRONTIER_CACHE", "~/cache"), ("HOME", "/root"),
    ],
)  # fmt: skip
def test_what_people_set_passes(name: str, value: str) -> None:
    assert variable_faults({name: value}) == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("CUDA_VISIBLE_DEVICES", "abc", "must name cards, each once"),
        ("CUDA_VISIBLE_DEVICES", "0, 1", "0,1, or unset"),
        ("CUDA_VISIBLE_DEVICES", "0,0", "each once"), ("CUDA_VISIBLE_DEVICES", "0,", "must name cards"),
        ("CUDA_VISIBLE_DEVICES", "0;1", "must name cards"), ("CUDA_VISIBLE_DEVICES", "1.5", "must name cards"),
        ("CUDA_VISIBLE_DEVICES", "-2", "must name cards"), ("CUDA_VISIBLE_DEVICES", "cuda:0", "must name cards"),
        ("OMP_NUM_THREADS", "two", "number of threads"), ("OMP_NUM_THREADS", "0", "from 1 to 9999"),
        ("OMP_NUM_THREADS", "-4", "number of threads"), ("OMP_NUM_THREADS", "1.5", "number of threads"),
        ("OMP_NUM_THREADS", "99999999999", "number of threads"), ("MKL_NUM_THREADS", "nan", "number of threads"),
        ("http_proxy", "http://", "a proxy's address"), ("HTTPS_PROXY", "http://proxy:port", "a proxy's address"),
        ("https_proxy", "http://proxy:99999", "a proxy's address"), ("ALL_PROXY", "ftp://proxy:1", "a proxy's address"),
        ("http_proxy", "http://[::1", "a proxy's address"), ("http_proxy", "://", "a proxy's address"),
        ("RAY_memory_usage_threshold", "2", "number from 0 to 1"), ("RAY_memory_usage_threshold", "x", "from 0 to 1"),
        ("RAY_memory_monitor_refresh_ms", "soon", "must be a number, -1 or more"),
        ("RAY_gcs_server_port_wait_time_s", "nan", "must be a number"),
        ("RAY_worker_register_timeout_seconds", "", "must be a number"),
        ("RAY_object_store_memory_bytes", "1e999", "must be a number"),
        ("HF_HOME", "/dev/null", "must be a folder; it is"),
        ("HF_HUB_CACHE", "/dev/null/hub", "must be a folder; /dev/null is none"),
        ("LORA_FRONTIER_CACHE", "/etc/passwd", "must be a folder"), ("HOME", "/dev/null", "must be a folder"),
    ],
)  # fmt: skip
def test_nonsense_is_named_with_its_variable_and_remedy(name: str, value: str, words: str) -> None:
    (fault,) = variable_faults({name: value, "PATH": "/bin"})
    assert str(fault).startswith(f"{name}: ")
    assert words in str(fault)
    assert "unset it" in str(fault)


def test_all_faults_come_at_once_and_no_password_of_a_proxy(tmp_path: Path) -> None:
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    environment = {
        "CUDA_VISIBLE_DEVICES": "x", "OMP_NUM_THREADS": "x", "HF_HOME": str(tmp_path / "broken"),
        "https_proxy": "http://user:sEcret1234@proxy:port", "RAY_num_workers_port": "x",
    }  # fmt: skip
    texts = list(map(str, variable_faults(environment)))
    assert [text.partition(":")[0] for text in texts] == [
        "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "HF_HOME", "https_proxy", "RAY_num_workers_port",
    ]  # fmt: skip
    assert "sEcret1234" not in "".join(texts)


def test_this_processes_own_environment_passes() -> None:
    assert variable_faults(os.environ) == []
