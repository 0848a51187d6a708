"""The start banner as a person reads it."""

from __future__ import annotations

from pathlib import Path

from gateway.config.deployment import Deployment
from gateway.serving.banner import VersionStatus, banner

DEPLOYMENT = Deployment(models=Path("m"), port=8000, grpc_port=8001, workers=2)


def test_the_banner_lists_versions_by_number_with_state_and_reason() -> None:
    versions = {
        ("digits", "10"): VersionStatus("READY"),
        ("digits", "9"): VersionStatus("UNAVAILABLE", "model.onnx is truncated"),
        ("cancer", "1"): VersionStatus("READY"),
    }
    assert banner(DEPLOYMENT, versions, 3.21) == (
        "gateway is ready after 3.2 s: 2 of 3 versions, 2 models, 2 workers\n"
        "\n"
        "  cancer    1  READY\n"
        "  digits    9  UNAVAILABLE  model.onnx is truncated\n"
        "  digits   10  READY\n"
        "\n"
        "  gRPC and REST: 127.0.0.1:8001 (--grpc-port), 127.0.0.1:8000 (--port)\n"
        "  Ctrl-C stops it, after at most 30 s for requests in flight (--drain)\n"
    )


def test_a_server_without_a_ready_version_does_not_say_ready() -> None:
    text = banner(DEPLOYMENT, {("m", "1"): VersionStatus("UNAVAILABLE", "x")}, 1)
    assert text.startswith("gateway is up, but NOT READY: no version could be loaded; after 1.0 s: 0 of 1 version")


def test_what_lies_in_the_repository_and_is_no_version_is_told_below() -> None:
    text = banner(DEPLOYMENT, {("m", "1"): VersionStatus("READY")}, 1, left_out={"shop": "shop has no version"})
    assert "  m    1  READY\n  shop left out: shop has no version\n\n  gRPC" in text


def test_tls_and_ipv6_show_in_the_addresses() -> None:
    deployment = DEPLOYMENT.model_copy(update={"tls_cert": Path("c"), "host": "::1"})
    assert "gRPC and REST over TLS: [::1]:8001" in banner(deployment, {}, 1)


def test_the_address_of_the_metrics_is_shown_where_there_is_one() -> None:
    assert "Metrics" not in banner(DEPLOYMENT, {}, 1)
    text = banner(DEPLOYMENT, {}, 1, has_control=True)
    assert "\n  Metrics: http://127.0.0.1:8002/metrics (--control-port)\n" in text
