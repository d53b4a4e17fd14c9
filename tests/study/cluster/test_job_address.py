"""A cluster's job address: URLs alone, and no waiting for what never responds."""

from __future__ import annotations

import time

import pytest

from study.cluster.jobs import job_address, responds
from study.errors import ConfigError
from tests.support.border.listeners import DASHBOARD, SILENT, Listener, free_port


@pytest.mark.parametrize(
    "address", ["ftp://x", "ray://x:1", "x", "http://", "http://x:99999", "http://[::1", "://", "x:1"]
)
def test_what_is_no_url_of_a_dashboard_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"--address: .*https:// URL of a cluster's dashboard"):
        job_address(address, {})


def test_a_wrong_url_of_the_environment_is_named_by_its_variable() -> None:
    with pytest.raises(ConfigError, match=r"^RAY_API_SERVER_ADDRESS: .*http://\*\*\*@x:port"):
        job_address(None, {"RAY_API_SERVER_ADDRESS": "http://u:sEcret1234@x:port"})


def test_any_http_server_responds_and_nothing_else_does() -> None:
    with Listener(DASHBOARD) as listener:  # an error is a response too
        assert responds(f"http://{listener.address}")
        assert responds(f"http://user:password@{listener.address}/")
    assert not responds(f"http://127.0.0.1:{free_port()}")
    start = time.monotonic()
    with Listener(SILENT) as listener:
        assert not responds(f"http://{listener.address}", seconds=0.2)
    assert time.monotonic() - start < 2
