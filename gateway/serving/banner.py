"""What a person reads when the server is up: what it serves, what it does not and why, and where to reach it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.config.deployment import FLAGS, Deployment


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """One version as a worker reported it."""

    state: str
    reason: str = ""


def banner(
    deployment: Deployment,
    versions: Mapping[tuple[str, str], VersionStatus],
    seconds: float,
    has_control: bool = False,
    is_ephemeral: bool = False,
    left_out: Mapping[str, str] | None = None,
) -> str:
    """Text of several lines, ending in a newline. `versions` by (model, version); `deployment` with the real ports;
    `left_out` by model: what lies in the repository and is no version.
    """
    n_ready = sum(status.state == "READY" for status in versions.values())
    is_up = "is ready" if n_ready else "is up, but NOT READY: no version could be loaded;"
    n_models = len({model for model, _ in versions})
    lines = [
        f"gateway {is_up} after {seconds:.1f} s: {n_ready} of {_count(len(versions), 'version')}, "
        f"{_count(n_models, 'model')}, {_count(deployment.workers, 'worker')}",
        "",
    ]
    width = max((len(model) for model, _ in versions), default=0)
    for (model, version), status in sorted(
        versions.items(), key=lambda item: (item[0][0], len(item[0][1]), item[0][1])
    ):
        lines.append(f"  {model:<{width}}  {version:>3}  {status.state:<11}  {status.reason}".rstrip())
    lines += [f"  {model} left out: {reason}" for model, reason in sorted((left_out or {}).items())]
    scheme = "gRPC and REST over TLS" if deployment.tls_cert else "gRPC and REST"
    control = address(deployment.host, deployment.control_port)
    lines += [
        "",
        f"  {scheme}: {address(deployment.host, deployment.grpc_port)} ({FLAGS['grpc_port']}), "
        f"{address(deployment.host, deployment.port)} ({FLAGS['port']})",
        *([f"  Metrics: http://{control}/metrics ({FLAGS['control_port']})"] if has_control else []),
        *([f"  Control: http://{control}/docs"] if has_control else []),
        *([f"  Routes and the audit log are not kept: give {FLAGS['state']} DIR to keep them"] if is_ephemeral else []),
        f"  Ctrl-C stops it, after at most {deployment.drain_s:g} s for requests in flight ({FLAGS['drain_s']})",
    ]
    return "\n".join(lines) + "\n"


def address(host: str, port: int) -> str:
    """host:port, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
