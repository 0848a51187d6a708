"""A shadow on a running gateway of two workers: callers see nothing of it, operators see how it differs."""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np

from tests.conftest import Serve
from tests.support.conditions import eventually
from tests.support.control import put, times
from tests.support.gatewayprocess import GatewayProcess
from tests.support.oip import INFER, connect, request

N = 40
SHADOWED = {"versions": {"1": 100}, "shadows": [{"version": "2"}]}


def answers(gateway: GatewayProcess) -> list[bytes]:
    """To N different requests, over connections enough to meet both workers."""
    found = []
    for at in range(0, N, 5):
        with connect(gateway.grpc_url) as channel:
            call = channel.unary_unary(INFER)
            for i in range(at, at + 5):
                row = {"x": np.full((1, 4), i + 1, np.float32)}
                found.append(call(request("m", row, id=f"r{i}").SerializeToString(), timeout=20))
    return found


def test_what_a_shadow_answers_is_known_over_all_workers_also_of_one_that_died(tmp_path: Any, serve: Serve) -> None:
    for version, factor in ((1, 1.0), (2, 1.25)):
        put(tmp_path / "models", "m", version, times(factor))
    gateway = serve(tmp_path / "models", "--workers", "2", "--state", str(tmp_path / "state"))
    control = gateway.wait_routed("m")
    assert control.put_route("m", {"versions": {"1": 100}})[0] == 200
    expected = answers(gateway)
    status, changed = control.put_route("m", SHADOWED)
    assert status == 200, changed
    assert answers(gateway) == expected

    def pairs(n: int) -> Any:
        found = control.get("/v1/shadows/m")["pairs"]
        return found if sum(each["counts"]["counts"]["both_answered"] for each in found) >= n else None

    def compared() -> Any:
        """A copy that a busy machine has no time for is dropped, and another one made."""
        try:
            return eventually(lambda: pairs(N), "workers have told of their pairs", 5)
        except AssertionError:
            answers(gateway)
            return None

    (told,) = eventually(compared, "both workers have told of as many pairs", 60)
    assert told["counts"]["stage"] == changed["generation"]
    assert (told["rates"]["agreement"], told["rates"]["exact"]) == (0.0, 0.0)
    assert told["rates"]["outputs"]["y"]["median_relative_difference"] == 1.0, "0.2, by powers of ten"
    samples = control.get("/v1/shadows/m/disagreements")["disagreements"]
    recent = [sample for each in samples for sample in each["sample"]["recent"]]
    assert recent
    for sample in recent:
        (x,), (y,), (other,) = sample["inputs"], sample["primary"], sample["shadow"]
        assert sample["id"] == f"r{x['values'][0] - 1:g}"
        assert (y["values"], other["values"]) == (x["values"], [1.25 * value for value in x["values"]])

    os.kill(gateway.workers()[0], signal.SIGKILL)
    eventually(lambda: len(gateway.workers()) == 2, "there are two again")
    assert pairs(N), "what the dead one had told stays"
