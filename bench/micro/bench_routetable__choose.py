"""ns to find the lane for a model and version: one model, and a thousand with three versions each."""

from __future__ import annotations

from bench.micro.compiled import loops
from bench.micro.harness import Operation
from gateway.native.lane import Lane
from gateway.native.routetable import RouteTable
from gateway.native.signature import Signature
from gateway.native.timers import Timers


def operations() -> list[Operation]:
    signature = Signature("m", "1", [("input", "FP32", (-1, 30))], [("output", "FP32", (-1, 1))], True)
    lane = Lane(signature, None, None, None, Timers(), [], max_batch_size=1)
    one = RouteTable({"small_mlp": {"": lane, "1": lane}})
    many = RouteTable({f"model_{i:04}": {"": lane, "1": lane, "2": lane} for i in range(1000)})
    return [
        Operation("one model", repeat=loops().Choose(one, [("small_mlp", "")]).repeat),
        Operation(
            "1000 models", repeat=loops().Choose(many, [(f"model_{i * 37 % 1000:04}", "2") for i in range(1000)]).repeat
        ),
    ]
