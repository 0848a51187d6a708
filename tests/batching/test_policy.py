"""What a lane is told, as a table of wishes and what becomes of them."""

import dataclasses

import pytest

from gateway.batching.policy import (
    COPY_BYTES_PER_US,
    HOP_US,
    INLINE_BELOW_US,
    MAX_BATCH_BYTES,
    alone_bytes,
    instances_for,
    lane_policy,
)
from gateway.config.model import Batching
from gateway.native.lane import Lane
from gateway.native.signature import Signature
from gateway.native.timers import Timers


def policy(max_batch_size=8, cores=4, workers=1, is_one_thread=True, **wishes):
    return lane_policy(
        Batching(**wishes), max_batch_size=max_batch_size, cores=cores, workers=workers, is_one_thread=is_one_thread
    )


@pytest.mark.parametrize(
    ("wish", "cores", "workers", "expected"),
    [
        ("auto", 1, 1, 1),
        ("auto", 8, 1, 8),
        ("auto", 8, 2, 4),
        ("auto", 8, 3, 2),
        ("auto", 2, 4, 1),
        (1, 8, 1, 1),
        (6, 2, 4, 6),
    ],
)
def test_instances_are_as_wished_or_the_worker_s_share_of_the_cores(wish, cores, workers, expected):
    assert instances_for(wish, cores, workers) == expected
    assert policy(cores=cores, workers=workers, instances=wish).instances == expected


def test_without_wishes_batching_is_eager_without_timeouts_or_priorities():
    assert dataclasses.asdict(policy()) == {
        "max_batch_size": 8,
        "max_batch_bytes": MAX_BATCH_BYTES,
        "max_delay_us": 0,
        "instances": 4,
        "max_queue_rows": 65_536,
        "max_queue_bytes": 256 * 2**20,
        "default_timeout_us": 0,
        "max_timeout_us": 0,
        "priority_levels": 1,
        "default_priority": 1,
        "inline_below_us": INLINE_BELOW_US,
        "counts_cpu": True,
        "lingers": True,
        "alone_bytes": 0,
    }


@pytest.mark.parametrize(
    ("wishes", "name", "expected"),
    [
        ({"max_delay": "500us"}, "max_delay_us", 500),
        ({"max_delay": "2ms"}, "max_delay_us", 2_000),
        ({"queue_rows": 7}, "max_queue_rows", 7),
        ({"queue_bytes": "1MiB"}, "max_queue_bytes", 2**20),
        ({"default_timeout": "1.5s"}, "default_timeout_us", 1_500_000),
        ({"max_timeout": "10ms"}, "max_timeout_us", 10_000),
        ({"priority_levels": 3, "default_priority": 2}, "priority_levels", 3),
        ({"priority_levels": 3, "default_priority": 2}, "default_priority", 2),
    ],
)
def test_each_wish_arrives_in_the_lane_s_own_units(wishes, name, expected):
    assert getattr(policy(**wishes), name) == expected


def test_the_cap_is_the_backend_s_and_processor_time_counts_only_for_one_thread():
    settled = policy(max_batch_size=0, is_one_thread=False)
    assert (settled.max_batch_size, settled.counts_cpu) == (0, False)


def test_it_is_exactly_what_a_lane_takes():
    signature = Signature("m", "1", [("x", "FP32", (-1,))], [("y", "FP32", (-1,))], True)
    settled = policy(max_delay="1ms", priority_levels=2)
    lane = Lane(signature, None, None, None, Timers(), [], **settled.as_arguments())
    assert lane.max_batch_size == settled.max_batch_size
    assert lane.max_delay_us == 1_000
    assert lane.instances == settled.instances


def test_a_decision_cannot_be_changed_afterwards():
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy().instances = 5


@pytest.mark.parametrize(
    ("costs_us", "saved_us"),
    [
        ([(1, 117.0), (2, 236.0), (8, 1_170.0)], 0),  # a convolution: company makes it slower
        ([(1, 300.0), (2, 320.0), (8, 400.0)], 250),  # weights that are read once a batch
        ([(1, 2_000.0), (4, 2_000.0)], 1_500),  # a device: a run costs what it costs
    ],
)
def test_a_request_runs_alone_where_its_copy_takes_longer_than_company_saves(costs_us, saved_us):
    assert alone_bytes(costs_us) == (saved_us + HOP_US) * COPY_BYTES_PER_US


@pytest.mark.parametrize("costs_us", [[], [(1, 100.0)], [(4, 100.0), (8, 110.0)]])
def test_what_was_not_measured_is_joined(costs_us):
    assert alone_bytes(costs_us) == 0


def test_batches_for_other_servers_are_joined_whatever_they_cost():
    costs_us = [(1, 117.0), (2, 236.0)]
    wishes = {"max_batch_size": 8, "cores": 1, "workers": 1, "is_one_thread": True, "costs_us": costs_us}
    assert lane_policy(Batching(), **wishes).alone_bytes > 0
    assert lane_policy(Batching(), **wishes, in_flight=2).alone_bytes == 0
