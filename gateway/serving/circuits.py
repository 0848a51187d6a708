"""Gives each lane the circuit that its model's route asks for, and says in the log what becomes of it."""

from __future__ import annotations

from functools import partial
from typing import Protocol

from gateway.native.circuit import Circuit
from gateway.native.lane import Lane
from gateway.observability import logs


class Settings(Protocol):
    """As a route has them."""

    @property
    def failures(self) -> int: ...
    @property
    def open_for_us(self) -> int: ...
    @property
    def probes(self) -> int: ...


def set_circuit(lane: Lane, settings: Settings | None) -> None:
    """Owning loop only. One that has the settings already goes on as it is: a change of weights forgives nobody."""
    if settings is None:
        lane.circuit = None
        return
    wanted = (settings.failures, settings.open_for_us, settings.probes)
    held = lane.circuit
    if held is None or (held.failures, held.open_for_us, held.probes) != wanted:
        signature = lane.signature
        lane.circuit = Circuit(*wanted, partial(_say, signature.model, signature.version))


def _say(model: str, version: str, before: str, after: str, failed_in_a_row: int, pause_us: int) -> None:
    fields = {"model": model, "version": version, "before": before}
    if after == "open":
        logs.get().error("circuit open", **fields, failed_in_a_row=failed_in_a_row, tried_again_in_s=pause_us / 1e6)
    elif after == "half_open":
        logs.get().info("circuit half open, a request tries the version", **fields)
    else:
        logs.get().info("circuit closed, the version serves again", **fields)
