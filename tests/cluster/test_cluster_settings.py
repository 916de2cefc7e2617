from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from streamingllm.cli.app import app
from streamingllm.cluster.autoscaling import ResidentBytesPolicy, engines_wanted
from streamingllm.cluster.settings import ClusterSettings, check_for_cluster, cluster_settings
from streamingllm.errors import ConfigError
from streamingllm.server.settings import ServerSettings


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"replicas": 0}, "replicas=0 is less than 1"),
        ({"replicas": 3, "max_replicas": 2}, "max_replicas=2 is less than replicas=3"),
        ({"resident_bytes": "much"}, "resident_bytes='much' is no size"),
        ({"gateways": 0}, "gateways=0"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cluster_settings(fields)


@pytest.mark.parametrize("fields", [{"memory": True}, {"port": 0}])
def test_what_a_cluster_cannot_honour_is_refused_by_name(fields: dict[str, int]) -> None:
    (name,) = fields
    with pytest.raises(ConfigError, match=f"{name}=.* is not supported in a cluster"):
        check_for_cluster(ServerSettings(**fields))


def test_sizes_are_written_for_people() -> None:
    assert cluster_settings({"resident_bytes": "2GB"}).resident_bytes == 2 * 10**9
    assert cluster_settings({}) == ClusterSettings()


@pytest.mark.parametrize(
    ("resident", "num_engines", "wanted"),
    [
        ([], 1, 1),
        ([50.0, 60.0], 2, 2),
        ([150.0, 140.0], 2, 3),
        ([1000.0], 1, 10),
        ([70.0, 20.0], 2, 2),  # one engine would be too full
        ([40.0, 30.0], 2, 1),
        ([0.0, 0.0, 0.0], 3, 1),
    ],
)
def test_engines_follow_the_bytes_of_caches(
    resident: list[float], num_engines: int, wanted: int
) -> None:
    assert engines_wanted(resident, 100.0, num_engines) == wanted


def test_the_policy_keeps_to_the_bounds_of_the_deployment() -> None:
    context = SimpleNamespace(
        aggregated_metrics={"resident_cache_bytes": {"a": 900.0, "b": 50.0}},
        target_num_replicas=2,
        capacity_adjusted_min_replicas=2,
        capacity_adjusted_max_replicas=4,
    )
    assert ResidentBytesPolicy(bytes_per_engine=100.0)(context) == (4, {})
    context.aggregated_metrics = {}
    assert ResidentBytesPolicy(bytes_per_engine=100.0)(context) == (2, {})


def test_a_missing_package_is_named_with_the_way_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "streamingllm.cluster.running", raising=False)
    result = CliRunner().invoke(app, ["serve", "--cluster"])
    assert result.exit_code != 0
    assert "pip install 'streamingllm[cluster]'" in str(result.exception)


def test_an_option_of_a_cluster_needs_one() -> None:
    result = CliRunner().invoke(app, ["serve", "--replicas", "3"])
    assert result.exit_code != 0
    assert "replicas needs a cluster; set --cluster as well" in str(result.exception)
