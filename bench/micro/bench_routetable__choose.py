"""ns to choose a version: one version only, weighted 90/10 with a sticky key, header rules before it."""

from __future__ import annotations

from bench.micro.harness import Operation

KEYS = [f"customer-{i}".encode() for i in range(1024)]


def operations() -> list[Operation]:
    """One per kind of route, once the route table exists."""
    return []
