"""ns to draw the version for one request: no route, a split, and 20 rules with a sticky key behind them."""

from __future__ import annotations

from typing import Any

from bench.micro.compiled import loops
from bench.micro.harness import Operation
from gateway.native.lane import Lane
from gateway.native.routetable import RouteTable
from gateway.native.signature import Signature
from gateway.native.timers import Timers
from gateway.routing.armbook import ArmBook
from gateway.routing.compile import compile_routes
from gateway.routing.route import parse

NAMES = [("small_mlp", "")]


def lane(version: str) -> Lane:
    signature = Signature("small_mlp", version, [("input", "FP32", (-1, 30))], [("output", "FP32", (-1, 1))], True)
    return Lane(signature, None, None, None, Timers(), [], max_batch_size=1)


def table(document: dict[str, Any] | None) -> RouteTable:
    routes = {} if document is None else {"small_mlp": parse(document)}
    versions = {version: lane(version) for version in ("1", "2")}
    return compile_routes({"small_mlp": versions}, routes, {}, ArmBook())


def operations() -> list[Operation]:
    split = {"1": 95, "2": 5}
    rules = [
        {"match": {"header": "x-tenant", "exact": f"tenant-{number}"}, "versions": {"2": 100}} for number in range(20)
    ]
    sticky = {"header": "x-user"}
    users = [
        {b"x-request-id": b"8a1c3f90-27b4", b"x-tenant": b"nobody", b"x-user": b"customer-%08d" % number}
        for number in range(1000)
    ]
    routes: dict[str, tuple[dict[str, Any] | None, list[dict[bytes, bytes]]]] = {
        "no route": (None, [{}]),
        "one version": ({"versions": {"1": 100}}, [{}]),
        "random split": ({"versions": split}, [{}]),
        "sticky split": ({"versions": split, "sticky": sticky}, users),
        "20 rules, none matches": ({"versions": {"1": 100}, "rules": rules}, users),
        "20 rules and sticky split": ({"versions": split, "rules": rules, "sticky": sticky}, users),
    }
    choices = [
        Operation(name, repeat=loops().Choose(table(document), NAMES, headers).repeat)
        for name, (document, headers) in routes.items()
    ]
    return [*choices, Operation("noting 3 headers", repeat=loops().Note(list(users[0].items())).repeat)]
