"""What a monitor counts, beside the slow twin: datatypes, kinds of columns, odd values, any cut into batches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gateway.monitoring.summaries import STATISTICS, summarise
from gateway.monitoring.tile import MAX_QUANTA, TileCounts, decode
from gateway.native.monitor import Monitor
from gateway.native.tileplan import TilePlan
from tests.support import tiletwin as twin
from tests.support.lanes import NUMPY

NOW_S, NOW_US = 1_000_000_000.0, 10_000_000
Y = np.zeros((0, 1), np.float32)


def counted(monitor: Monitor) -> TileCounts:
    """The only tile of its only window."""
    ((_, _, _, blob),) = monitor.cut(NOW_S, NOW_US)
    return decode(monitor.plan, blob)


def watch(columns, inputs, outputs=(("y", "FP32", (-1, 1)),), batched=True) -> Monitor:
    monitor = Monitor(TilePlan(columns), twin.signature(inputs, outputs, batched))
    monitor.cut(NOW_S, NOW_US)
    return monitor


def note(monitor, rows, outputs=None, sizes=None):
    """The rows in batches of `sizes`, in turn."""
    at, sizes = 0, sizes or [len(rows)]
    for turn in range(10**6):
        n = min(sizes[turn % len(sizes)], len(rows) - at)
        answers = outputs[at : at + n] if outputs is not None else np.zeros((n, 1), np.float32)
        monitor.note_rows([rows[at : at + n]], [answers], None, NOW_US)
        at += n
        if at == len(rows):
            return


EDGES = [-3.0, -1.0, -0.5, 0.0, 0.25, 1.0, 7.0]
ODD = [
    0.0,
    -0.0,
    np.nan,
    np.inf,
    -np.inf,
    1e300,
    -1e300,
    5e-324,
    1.0,
    -3.0,
    7.0,
    np.nextafter(7, 6),
    np.nextafter(-3, -4),
]


@pytest.mark.parametrize("datatype", [name for name in NUMPY if name != "BYTES"])
def test_numbers_of_every_datatype_fall_where_the_twin_puts_them(datatype):
    random = np.random.default_rng(1)
    kind = NUMPY[datatype]
    if np.issubdtype(kind, np.floating):
        with np.errstate(over="ignore"):
            rows = (random.normal(size=(700, 3)) * 4).astype(kind)
            rows.ravel()[: 3 * len(ODD) : 3] = np.array(ODD).astype(kind)
    elif kind is np.bool_:
        rows = random.integers(0, 2, (700, 3)).astype(bool)
    else:
        info = np.iinfo(kind)
        rows = random.integers(max(info.min, -9), 9, (700, 3), dtype=kind)
        rows[0], rows[1] = info.min, info.max
    columns = [twin.numeric(f"c{i}", EDGES, index=i, centre=0.5, scale=0.25) for i in range(3)]
    columns.append(twin.categorical("k", [0, 1, -2] if datatype.startswith("INT") else [0, 1], index=1))
    monitor = watch(columns, [("x", datatype, (-1, 3))])
    note(monitor, rows, sizes=[1, 2, 3, 300])
    found = counted(monitor)
    twin.same(found.columns, twin.counts(monitor.plan, {("input", "x"): rows}))
    assert found.n_rows == 700


@given(
    values=hnp.arrays(np.float64, st.integers(0, 600), elements=st.floats(allow_nan=True, allow_infinity=True)),
    edges=st.lists(st.floats(-1e9, 1e9), max_size=70, unique=True).map(sorted),
    centre=st.floats(-1e6, 1e6),
    power=st.integers(-40, 40),
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=5),
)
@settings(max_examples=150, deadline=None)
def test_any_doubles_in_any_bins_fall_where_the_twin_puts_them(values, edges, centre, power, sizes):
    edges = [edge + 0.0 for edge in edges]
    rows = values.reshape(-1, 1)
    column = twin.numeric("c", edges, centre=centre, scale=2.0**power)
    if len(edges) < 2:
        column = twin.plain("c", tensor="x", role="input")
    monitor = watch([column], [("x", "FP64", (-1, 1))])
    note(monitor, rows, sizes=sizes)
    twin.same(counted(monitor).columns, twin.counts(monitor.plan, {("input", "x"): rows}))


def test_an_edge_belongs_to_the_bin_above_it_and_the_last_edge_is_outside():
    monitor = watch([twin.numeric("c", [0.0, 1.0, 2.0])], [("x", "FP64", (-1, 1))])
    note(monitor, np.array([[-1e-300], [-0.0], [0.0], [1.0], [np.nextafter(2, 1)], [2.0]]))
    found = counted(monitor).columns["c"]
    assert (found["below"], found["counts"].tolist(), found["above"]) == (1, [2, 2], 1)


def test_moments_are_cut_at_the_limit_and_rounded_half_to_even():
    monitor = watch([twin.numeric("c", [0.0, 1.0], centre=10.0, scale=1.0)], [("x", "FP64", (-1, 1))])
    note(monitor, np.array([[1e308], [-1e308], [10.5], [11.5], [8.5]]))
    found = counted(monitor).columns["c"]
    assert found["sum"] == MAX_QUANTA - MAX_QUANTA + 0 + 2 - 2
    assert found["sum_squares"] == 2 * MAX_QUANTA**2 + 4 + 4


@pytest.mark.parametrize("rows", [1, 3, 300, 20_000])
def test_a_batch_that_is_counted_without_the_gil_is_counted_alike(rows):
    random = np.random.default_rng(rows)
    x = random.normal(size=(rows, 4)).astype(np.float32)
    y = random.random((rows, 1)).astype(np.float32)
    columns = [twin.numeric(f"c{i}", EDGES, index=i) for i in range(3)]
    columns += [twin.categorical("k", [0, 1], index=3), twin.plain("y")]
    x[:, 3] = random.integers(0, 400, rows)
    monitor = watch(columns, [("x", "FP32", (-1, 4))])
    note(monitor, x, y)
    twin.same(counted(monitor).columns, twin.counts(monitor.plan, {("input", "x"): x, ("output", "y"): y}))


# --- words


WORDS = ["", "a", "b", "grüße", "0" * 300, "\0", "日本", "eight by", "eight byt"]


def test_texts_are_found_whole_and_the_empty_one_is_missing():
    random = np.random.default_rng(2)
    rows = np.array([WORDS[i] for i in random.integers(0, len(WORDS), 2_000)], object).reshape(-1, 2)
    columns = [twin.categorical("k", ["b", "0" * 300, "eight by", "never"], index=1)]
    columns.append(twin.summary("bytes", "length", [0.0, 4.0, 100.0, 1000.0]))
    monitor = watch(columns, [("x", "BYTES", (-1, 2))])
    note(monitor, rows, sizes=[1, 100])
    found = counted(monitor)
    twin.same(found.columns, twin.counts(monitor.plan, {("input", "x"): rows}))
    outside = found.outside["k"]
    texts = {text: rows[:, 1].tolist().count(text) for text in ("a", "grüße", "\0", "日本", "eight byt")}
    assert dict(outside.most) == texts
    assert outside.lacking == 0
    assert round(outside.distinct) == 5


@pytest.mark.parametrize("vocabulary", [[], ["a"], [f"word {i}" for i in range(500)]], ids=len)
def test_a_vocabulary_may_be_empty_or_large(vocabulary):
    rows = np.array([f"word {i}" for i in range(600)] + ["a", ""], object).reshape(-1, 1)
    monitor = watch([twin.categorical("k", vocabulary)], [("x", "BYTES", (-1, 1))])
    note(monitor, rows)
    twin.same(counted(monitor).columns, twin.counts(monitor.plan, {("input", "x"): rows}))


def test_numbers_outside_of_a_vocabulary_are_named_as_people_write_them():
    rows = np.array([[2.0], [2.5], [-7.0], [1e300], [np.nan], [np.inf], [0.0], [2.5]])
    monitor = watch([twin.categorical("k", [0])], [("x", "FP64", (-1, 1))])
    note(monitor, rows)
    found = counted(monitor)
    assert found.columns["k"] == {"counts": found.columns["k"]["counts"], "other": 6, "missing": 1, "n": 8}
    assert dict(found.outside["k"].most) == {"2": 1, "2.5": 2, "-7": 1, "1.0000000000000001e+300": 1, "inf": 1}


def test_the_whole_range_of_64_bits_is_told_apart():
    rows = np.array([[0], [2**63], [2**64 - 1], [2**64 - 2]], np.uint64)
    monitor = watch([twin.categorical("k", [2**64 - 1, 5])], [("x", "UINT64", (-1, 1))])
    note(monitor, rows)
    found = counted(monitor)
    assert found.columns["k"]["counts"].tolist() == [1, 0]
    assert {text for text, _ in found.outside["k"].most} == {"0", str(2**63), str(2**64 - 2)}


# --- summaries


@pytest.mark.parametrize("datatype", ["FP32", "FP64", "UINT8", "FP16", "INT64"])
@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 255, 257, 1000])
def test_summaries_are_those_of_their_definition(datatype, n):
    random = np.random.default_rng(n)
    rows = (random.normal(100, 30, (9, n)) if datatype != "UINT8" else random.integers(0, 255, (9, n))).astype(
        NUMPY[datatype]
    )
    for statistic in (*STATISTICS, "projection"):
        values = summarise(rows, statistic, 7)
        edges = sorted({float(value) for value in values})
        if len(edges) < 2:
            edges = [edges[0], edges[0] + 1]
        seed = {"projection_seed": 7} if statistic == "projection" else {}
        monitor = watch([twin.summary("s", statistic, edges, **seed)], [("x", datatype, (-1, n))])
        note(monitor, rows)
        found = counted(monitor).columns["s"]
        # Every value is an edge: one FP32 step off, and it would fall into the bin below.
        twin.same({"s": found}, twin.counts(monitor.plan, {("input", "x"): rows}))


@pytest.mark.parametrize("odd", [[np.nan], [np.inf], [-np.inf], [np.inf, -np.inf], [np.inf, np.nan]], ids=str)
@pytest.mark.parametrize("where", [0, 100, 700])
def test_summaries_of_what_is_not_finite_are_those_of_their_definition(odd, where):
    rows = np.random.default_rng(3).normal(size=(2, 800)).astype(np.float32)
    rows[0, where : where + len(odd)] = odd
    columns = [twin.summary(name, name, [-1e30, 1e30]) for name in STATISTICS]
    columns.append(twin.summary("projection", "projection", [-1e30, 1e30], projection_seed=1))
    monitor = watch(columns, [("x", "FP32", (-1, 800))])
    note(monitor, rows)
    found, expected = counted(monitor).columns, twin.counts(monitor.plan, {("input", "x"): rows})
    for name in found:
        for key in ("nan", "neg_inf", "pos_inf", "counts"):
            assert np.array_equal(found[name][key], expected[name][key]), (name, key)


def test_a_constant_row_has_no_deviation_wherever_it_lies():
    rows = np.full((3, 8_000), 0.1, np.float32)
    rows[1:] *= 1e6
    monitor = watch([twin.summary("s", "std", [0.0, 1e-300, 1.0])], [("x", "FP32", (-1, 8_000))])
    note(monitor, rows)
    assert counted(monitor).columns["s"]["counts"].tolist() == [3, 0]


@pytest.mark.parametrize("sizes", [[1], [7], [50]])
def test_of_large_tensors_every_nth_row_is_summarised_and_the_first_of_a_minute(sizes):
    n_values, every = 8192 * 4, 5
    rows = np.repeat(np.arange(50, dtype=np.float32)[:, None], n_values, axis=1)
    columns = [twin.summary("s", "mean", np.arange(51).tolist()), twin.numeric("c", [0.0, 100.0])]
    monitor = watch(columns, [("x", "FP32", (-1, n_values))])
    note(monitor, rows, sizes=sizes)
    found = counted(monitor).columns
    assert np.flatnonzero(found["s"]["counts"]).tolist() == list(range(0, 50, every))
    assert (found["s"]["n"], found["c"]["n"]) == (10, 50)
    monitor.note_rows([rows[49:]], [np.zeros((1, 1), np.float32)], None, NOW_US + 61_000_000)
    cuts = monitor.cut(NOW_S + 61, NOW_US + 61_000_000)
    assert decode(monitor.plan, cuts[-1][3]).columns["s"]["n"] == 1


def test_a_row_of_open_length_may_lack_a_value():
    columns = [twin.numeric("c", [0.0, 1.0, 9.0], index=2), twin.categorical("k", [1], index=2)]
    columns.append(twin.summary("n", "length", [0.0, 2.0, 4.0]))
    monitor = watch(columns, [("x", "INT64", (-1, -1))])
    monitor.note_rows([np.ones((4, 2), np.int64)], [np.zeros((4, 1), np.float32)], None, NOW_US)
    monitor.note_rows([np.ones((5, 3), np.int64)], [np.zeros((5, 1), np.float32)], None, NOW_US)
    monitor.note_rows([np.ones((6, 0), np.int64)], [np.zeros((6, 1), np.float32)], None, NOW_US)
    found = counted(monitor).columns
    assert (found["c"]["nan"], found["c"]["counts"].tolist()) == (10, [0, 5])
    assert (found["k"]["missing"], found["k"]["counts"].tolist()) == (10, [5])
    assert found["n"]["counts"].tolist() == [6, 9]


def test_a_model_without_a_batch_dimension_has_one_row_a_run():
    monitor = watch(
        [twin.numeric("c", [0.0, 1.0, 9.0], index=3)], [("x", "FP32", (2, 2))], [("y", "FP32", (1,))], False
    )
    for value in (0.5, 3.0, 4.0):
        monitor.note_rows([np.full((2, 2), value, np.float32)], [np.zeros(1, np.float32)], None, NOW_US)
    found = counted(monitor)
    assert found.columns["c"]["counts"].tolist() == [1, 2]
    assert found.n_rows == 3


def test_a_constant_output_shows_without_a_profile():
    monitor = watch([twin.plain("y")], [("x", "FP32", (-1, 1))])
    note(monitor, np.zeros((9, 1), np.float32), np.full((9, 1), -2.5, np.float32))
    found = counted(monitor).columns["y"]
    assert (found["least"], found["greatest"], found["finite"]) == (-2.5, -2.5, 9)


# --- what cannot be watched


@pytest.mark.parametrize(
    ("column", "fault"),
    [
        (twin.numeric("c", [0.0, 1.0], tensor="z"), "tensor: got 'z', expected one of 'x', 't'"),
        (twin.numeric("c", [0.0, 1.0], index=3), "index: got 3, expected less than the row's 3 values"),
        (twin.numeric("c", [0.0, 1.0], tensor="t"), "expected categorical: the tensor is text"),
        (twin.categorical("c", ["a"]), "got 'a', expected whole numbers: the tensor is of FP32"),
        (twin.categorical("c", [1], tensor="t"), "got 1, expected texts: the tensor is of BYTES"),
        (twin.summary("c", "mean", [0.0, 1.0], tensor="t"), "got 'mean', expected length: the tensor is text"),
        (twin.plain("c"), None),
    ],
)
def test_a_column_that_the_version_does_not_have_is_refused(column, fault):
    inputs = [("x", "FP32", (-1, 3)), ("t", "BYTES", (-1, 1))]
    if fault is None:
        assert Monitor(TilePlan([column]), twin.signature(inputs))
        return
    with pytest.raises(ValueError, match="column 'c' of model 'm' version '1'") as refusal:
        Monitor(TilePlan([column]), twin.signature(inputs))
    assert fault in str(refusal.value)


@pytest.mark.parametrize(
    ("column", "fault"),
    [
        (twin.numeric("c", [1.0, 1.0]), "edges: got 1.0 before 1.0, expected them to increase"),
        (twin.numeric("c", [0.0, np.inf]), "edges: got an infinite one"),
        (twin.numeric("c", [0.0, np.nan]), "expected them to increase"),
        (twin.numeric("c", [0.0, 1.0], scale=-1.0), "scale: got -1.0, expected a power of two"),
        (twin.numeric("c", [0.0, 1.0], scale=5e-324), "whose inverse is finite"),
        (twin.categorical("c", ["a", "b", "a"]), "'a' comes twice"),
        (twin.categorical("c", [1, -(2**64)]), "expected numbers of 64 bits"),
        (twin.categorical("c", ["a", 1]), "expected texts only or whole numbers only"),
        (twin.summary("c", "median", [0.0, 1.0]), "statistic: got 'median', expected one of mean, std"),
        ({**twin.numeric("c", [0.0, 1.0]), "role": "label"}, "role: got 'label', expected input or output"),
        ({**twin.numeric("c", [0.0, 1.0]), "bins": 3}, "got a field 'bins'"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(column, fault):
    with pytest.raises(ValueError, match="column 'c'") as refusal:
        TilePlan([column])
    assert fault in str(refusal.value)


def test_two_columns_of_one_name_are_refused():
    with pytest.raises(ValueError, match="column 'c' comes twice"):
        TilePlan([twin.plain("c"), twin.plain("c", index=1)])


def test_arrays_that_are_not_the_signatures_are_refused():
    monitor = watch([twin.plain("y")], [("x", "FP32", (-1, 1))])
    good = np.zeros((2, 1), np.float32)
    for inputs, outputs in (([good], []), ([good], [good[:1]]), ([good], [good.astype(float)]), ([good], [good[::2]])):
        with pytest.raises(ValueError, match="array"):
            monitor.note_rows(inputs, outputs)
