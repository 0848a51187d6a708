"""A lane harness with a shadow: version 1 answers, version 2 is asked the same in its twin lane.

`batches` holds the batches of both; `primary()` and `shadow()` run the next one of either. The with block's end asserts
that nothing is left, of the shadow either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gateway.native.arm import Arm
from gateway.native.batch import Batch
from gateway.native.lane import Lane
from gateway.native.pairs import PairStats
from gateway.native.route import Route, ShadowLoad, ShadowSpec, Target
from gateway.native.routetable import RouteTable
from gateway.native.shadow import ShadowStats
from gateway.native.signature import Signature
from tests.support.lanes import Array, Harness, Model, Spec, X, Y

Run = Callable[[list[Array]], list[Array]]


class ShadowHarness(Harness):
    """With both versions served; policy goes to the primary's lane, and budget to the shadow."""

    def __init__(
        self,
        run: Run | None = None,
        shadow_run: Run | None = None,
        *,
        inputs: Sequence[Spec] = (X,),
        outputs: Sequence[Spec] = (Y,),
        shadow_inputs: Sequence[Spec] | None = None,
        shadow_outputs: Sequence[Spec] | None = None,
        share: int = 10_000,
        max_rows: int = 1024,
        max_bytes: int = 1 << 20,
        max_concurrency: int = 64,
        max_in_flight_bytes: int = 1 << 30,
        shadow_policy: dict[str, Any] | None = None,
        **policy: Any,
    ) -> None:
        super().__init__(max_in_flight_bytes=max_in_flight_bytes)
        self.plane.occupancy.n_cores = 1_000
        primary = self.lane(run, inputs=inputs, outputs=outputs, occupancy=self.plane.occupancy, **policy)
        signature = Signature("m", "2", shadow_inputs or inputs, shadow_outputs or outputs, True)
        self.twin = self._version_2(
            signature, shadow_run or run or Model(), None, {"instances": 1, **(shadow_policy or {})}
        )
        self.version_2 = self._version_2(signature, shadow_run or run or Model(), self.twin, {})
        self.load = ShadowLoad()
        self.shadow_arm = Arm("m", "2", "shadow", 7)
        self.primary_arm = Arm("m", "1", "stable", 7, 10_000)
        self.spec = ShadowSpec(
            "2", self.version_2, self.shadow_arm, share, b"salt", self.load, max_rows, max_bytes, max_concurrency
        )
        self.route(primary, [self.spec])

    def _version_2(self, signature: Signature, run: Run, twin: Lane | None, policy: dict[str, Any]) -> Lane:
        lane = Lane(
            signature,
            run,
            self.batches.append,
            self._report,
            self.plane.timers,
            self.plane.pending if twin else self.plane.background,
            **{"max_batch_size": 8, "inline_below_us": 0, **policy},
            occupancy=self.plane.occupancy,
            twin=twin,
            is_background=twin is None,
        )
        self.lanes["m/2" if twin else "m/2 shadow"] = lane
        return lane

    def route(self, primary: Lane, shadows: list[ShadowSpec]) -> None:
        target = Target("1", primary, self.primary_arm, Route("m", 7, shadows=shadows))
        self.plane.routes = RouteTable({"m": {"": target, "1": primary, "2": self.version_2}})

    @staticmethod
    def model_of(batch: Batch) -> str:
        return "m" if batch.signature.version == "1" else "m/2 shadow"

    # --- one side at a time

    def primary(self) -> Batch:
        """The primary's next batch runs."""
        return self._finish("1")

    def shadow(self) -> Batch:
        return self._finish("2")

    def _finish(self, version: str) -> Batch:
        return self.finish([batch.signature.version for batch in self.batches].index(version))

    # --- what is known

    @property
    def stats(self) -> ShadowStats:
        return self.plane.mirror.stats[self.shadow_arm]

    @property
    def tally(self) -> PairStats:
        return self.stats.pairs[self.primary_arm]

    @property
    def counts(self) -> dict[str, Any]:
        return self.tally.statistics()

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.shut()
        self.turn()
        if kind is None:
            for batch in [*self.batches]:
                self.batches.remove(batch)
                batch.execute(self.lanes[self.model_of(batch)].runner)
                self.plane.settle(batch, self.now_us)
                del batch
            self.turn(60_000_000)
            while self.batches:
                self.finish()
            assert (self.load.requests, self.load.rows, self.load.nbytes) == (0, 0, 0)
            for stats in self.plane.mirror.stats.values():
                n_pairs = sum(
                    counts["both_answered"]
                    + counts["both_failed"]
                    + sum(counts["primary_failed"].values())
                    + sum(counts["shadow_failed"].values())
                    for counts in (tally.statistics() for tally in stats.pairs.values())
                )
                assert stats.n_open == 0
                assert stats.n_drawn == n_pairs + sum(stats.dropped.values()), "every request drawn is accounted for"
        super().__exit__(kind, *rest)
