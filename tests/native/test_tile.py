"""Tiles add up to the same bits in any order and grouping, survive being bytes, and refuse bytes that are damaged."""

import random
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.monitoring.tile import N_LATENCY, TileCounts, decode, latency_bounds_us, latency_quantile_us
from gateway.native.monitor import Monitor
from gateway.native.tile import Tile, latency_cell_of
from gateway.native.tileplan import TilePlan
from tests.support import tiletwin as twin

NOW_S, NOW_US = 1_000_000_000.0, 10_000_000
SIGNATURE = twin.signature([("x", "FP64", (-1, 3)), ("t", "BYTES", (-1, 1))])
PLAN = TilePlan(
    [
        twin.numeric("a", [-1.0, 0.0, 1.0], centre=0.1),
        twin.numeric("b", np.linspace(0, 1, 40).tolist(), index=1),
        twin.categorical("c", [0, 1, 2], index=2),
        twin.categorical("t", ["yes", "no"], tensor="t"),
        twin.summary("norm", "norm", [0.0, 1.0, 2.0]),
        twin.plain("y"),
    ]
)

rows = st.tuples(
    st.floats(allow_nan=True),
    st.floats(0, 1),
    st.integers(-3, 40).map(float),
    st.sampled_from(["", "yes", "no", "new", "日本"]),
)
pieces = st.lists(st.lists(rows, min_size=1, max_size=40), min_size=1, max_size=8)


def tile_of(piece, plan=PLAN) -> Tile:
    monitor = Monitor(plan, SIGNATURE)
    monitor.cut(NOW_S, NOW_US)
    x = np.array([row[:3] for row in piece], np.float64)
    t = np.array([[row[3]] for row in piece], object)
    monitor.note_rows([x, t], [x[:, 1:2].astype(np.float32)], None, NOW_US)
    ((_, _, _, blob),) = monitor.cut(NOW_S, NOW_US)
    return Tile.from_bytes(plan, blob)


def total(tiles) -> Tile:
    found = Tile(PLAN)
    for tile in tiles:
        found.add(tile)
    return found


# --- adding


@given(pieces=pieces, seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_any_order_and_any_grouping_of_workers_give_the_bits_of_one(pieces, seed):
    alone = tile_of([row for piece in pieces for row in piece]).to_bytes()
    tiles = [tile_of(piece) for piece in pieces]
    shuffled = random.Random(seed)
    while len(tiles) > 1:  # two at random become one: some tree over some order
        shuffled.shuffle(tiles)
        tiles.append(total([tiles.pop(), tiles.pop()]))
    assert total(tiles).to_bytes() == alone


@given(left=pieces, right=pieces)
@settings(max_examples=30, deadline=None)
def test_adding_commutes_and_nothing_is_neutral(left, right):
    a, b = (tile_of([row for piece in side for row in piece]) for side in (left, right))
    assert total([a, b]).to_bytes() == total([b, a]).to_bytes()
    assert total([a, Tile(PLAN)]).to_bytes() == total([Tile(PLAN), a]).to_bytes() == a.to_bytes()


def test_a_sum_of_heavy_streams_keeps_its_bits_in_any_order():
    """Thousands of values outside of the vocabulary: counters are cut in each stream, and adding forgets none."""
    streams = [[(0.0, 0.0, float(i * k % 5000), f"id {i * k % 3000}") for i in range(4000)] for k in (1, 3, 7)]
    a, b, c = map(tile_of, streams)
    assert total([total([a, b]), c]).to_bytes() == total([a, total([c, b])]).to_bytes() == total([c, b, a]).to_bytes()


def test_tiles_of_two_plans_do_not_add_up():
    other = TilePlan([twin.plain("y")])
    assert TilePlan(PLAN.columns).digest == PLAN.digest != other.digest
    Tile(PLAN).add(Tile(TilePlan(PLAN.columns)))
    with pytest.raises(ValueError, match=f"a tile of plan {other.digest.hex()} cannot be added to one of plan"):
        Tile(PLAN).add(Tile(other))


# --- as bytes


@given(piece=st.lists(rows, min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_a_tile_survives_being_bytes(piece):
    tile = tile_of(piece)
    again = Tile.from_bytes(PLAN, tile.to_bytes())
    assert again.to_bytes() == tile.to_bytes()
    assert again.cells.tolist() == tile.cells.tolist()
    assert [again.others_of(i) for i in range(2)] == [tile.others_of(i) for i in range(2)]


SAMPLE = tile_of([(np.nan, 0.5, 7.0, "new"), (1e300, 0.1, 1.0, "yes"), (-np.inf, 0.0, 9.0, "日本")]).to_bytes()


def test_an_empty_tile_is_small():
    assert len(Tile(PLAN).to_bytes()) < 64
    assert len(SAMPLE) < 300


def test_every_changed_byte_is_found():
    for at in range(len(SAMPLE)):
        for flip in (1, 0x80, 0xFF):
            blob = SAMPLE[:at] + bytes([SAMPLE[at] ^ flip]) + SAMPLE[at + 1 :]
            with pytest.raises(ValueError, match="tile's bytes"):
                Tile.from_bytes(PLAN, blob)


def test_every_cut_is_found():
    for at in range(len(SAMPLE)):
        with pytest.raises(ValueError, match="tile's bytes"):
            Tile.from_bytes(PLAN, SAMPLE[:at])
        with pytest.raises(ValueError, match="tile's bytes"):
            Tile.from_bytes(PLAN, SAMPLE + SAMPLE[:at + 1])  # fmt: skip


def sealed(body: bytes) -> bytes:
    return body + zlib.crc32(body).to_bytes(4, "little")


@pytest.mark.parametrize("seed", range(20))
def test_damage_under_a_right_checksum_is_refused_or_is_a_tile(seed):
    """Whoever writes the checksum can write any tile, but nothing that reads or writes out of bounds."""
    chance = random.Random(seed)
    n_tiles = 0
    for _ in range(500):
        body = bytearray(SAMPLE[:-4])
        for _ in range(chance.randrange(1, 4)):
            body[chance.randrange(19, len(body))] = chance.randrange(256)
        if chance.random() < 0.3:
            del body[chance.randrange(19, len(body)) :]
        try:
            tile = Tile.from_bytes(PLAN, sealed(bytes(body)))
        except ValueError:
            continue
        n_tiles += 1
        total([tile, tile]).to_bytes()
        TileCounts.of(tile)
    assert n_tiles < 500


@pytest.mark.parametrize(
    ("blob", "fault"),
    [
        (b"", "got 0 bytes that begin with b''"),
        (b"PK" + SAMPLE[2:], "begin with b'PK', expected b'GT'"),
        (SAMPLE[:2] + b"\2" + SAMPLE[3:], "got format 2, expected 1"),
        (SAMPLE[:-1] + b"!", "the checksum does not fit"),
        (sealed(SAMPLE[:3] + bytes(16) + SAMPLE[19:-4]), f"of plan {'00' * 16}, expected plan {PLAN.digest.hex()}"),
        (sealed(SAMPLE[:19]), "they end at cell 0 of"),
        (sealed(SAMPLE[:19] + b"\0\0"), "a run of zeros at cell 0 of"),
        (sealed(SAMPLE[:19] + b"\0\xff\xff\xff\x7f"), "a run of zeros at cell 0 of"),
        (sealed(SAMPLE[:19] + b"\x01" + SAMPLE[20:-4]), "cell 0 counts less than nothing"),
        (sealed(SAMPLE[:-4] + b"\0"), "got 1 bytes more"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(blob, fault):
    with pytest.raises(ValueError, match="a tile's bytes") as refusal:
        Tile.from_bytes(PLAN, blob)
    assert fault in str(refusal.value)


# --- latency


def test_latency_cells_are_a_thirty_second_of_an_octave_wide_and_in_order():
    bounds = latency_bounds_us()
    assert len(bounds) == N_LATENCY
    assert (np.diff(bounds) > 0).all()
    widths = np.diff(bounds[:-1]) / bounds[:-2].clip(1)
    assert widths[64:].max() <= 1 / 32
    times = sorted({int(1.01**power) for power in range(2000)} | {2**k + d for k in range(28) for d in (-1, 0, 1)})
    for us in times:
        cell = latency_cell_of(us)
        assert bounds[cell] <= us
        assert cell == N_LATENCY - 1 or us < bounds[cell + 1]
    assert latency_cell_of(-5) == 0
    assert latency_cell_of(2**62) == N_LATENCY - 1


def test_a_latency_quantile_is_within_its_cell():
    times = np.random.default_rng(0).lognormal(6, 1, 20_000).astype(int)
    cells = np.bincount([latency_cell_of(us) for us in times.tolist()], minlength=N_LATENCY)
    for q in (0.0, 0.01, 0.5, 0.9, 0.99, 1.0):
        exact = np.quantile(times, q, method="inverted_cdf")
        assert latency_quantile_us(cells, q) == pytest.approx(exact, rel=0.017, abs=0.5)
    assert np.isnan(latency_quantile_us(np.zeros(N_LATENCY, np.int64), 0.5))


# --- reading


def test_a_tile_is_read_as_the_twin_counts_it():
    piece = [(np.nan, 0.5, 7.0, "new"), (1e300, 0.1, 1.0, "yes"), (-np.inf, 0.0, 9.0, "")]
    found = decode(PLAN, tile_of(piece).to_bytes())
    x, t = np.array([row[:3] for row in piece]), np.array([[row[3]] for row in piece], object)
    y = x[:, 1:2].astype(np.float32)
    twin.same(found.columns, twin.counts(PLAN, {("input", "x"): x, ("input", "t"): t, ("output", "y"): y}))
    assert found.n_rows == 3
    assert (found.n_requests, found.n_violations, found.codes) == (0, 0, {})
