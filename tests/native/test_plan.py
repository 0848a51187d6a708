"""Where a request goes: rules, weights and sticky keys, held to a slow twin and to statistics."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.native import dice
from gateway.native.arm import Arm
from gateway.native.plan import Plan, key_of
from gateway.native.refusal import Refusal
from gateway.native.route import Route, ShadowLoad, ShadowSpec, Tally, Target
from gateway.native.routetable import RouteTable
from tests.support import routetwin
from tests.support.lanes import refused
from tests.support.routetwin import Dice, Side, Twin, TwinRule, request

NOWHERE = "it is not loaded"


def targets(split: Sequence[Side], label: str = "") -> list[tuple[Target, int]]:
    """Told apart by the name of the arm."""
    return [
        (Target(side.version, NOWHERE, Arm("m", side.version, f"{label}{index}")), side.share)
        for index, side in enumerate(split)
    ]


def table_of(twin: Twin, tally: Tally | None = None) -> RouteTable:
    rules = [
        (
            rule.is_parameter,
            rule.name.encode(),
            rule.is_prefix,
            [value.encode() for value in rule.values],
            targets(rule.split, f"{index}/"),
        )
        for index, rule in enumerate(twin.rules)
    ]
    sticky = (twin.sticky[0], twin.sticky[1].encode()) if twin.sticky else None
    plan = Plan(tally or Tally("m"), 1, targets(twin.split, "-1/"), rules, sticky, twin.salt)
    return RouteTable({"m": {"": plan}})


def chosen(table: RouteTable, headers: dict[bytes, bytes] | None = None, message: Any = None) -> str:
    """Rule and side, as "-1/0"."""
    arm = table.target("m", "", headers or {}, (message or request()).SerializeToString()).arm
    assert arm
    return arm.name


def split_of(*shares: int) -> list[Side]:
    return [Side(str(index + 1), share) for index, share in enumerate(shares)]


# --- draws


def test_a_random_split_has_the_shares_it_was_given() -> None:
    shares = [9_500, 490, 9, 1, 0]
    table = table_of(Twin(split_of(*shares)))
    dice.seed(1)
    n = 1_000_000
    counts = Counter(table.draws("m", n))
    assert counts.total() == n
    assert counts["-1/4"] == 0
    expected = [n * share / 10_000 for share in shares[:4]]
    observed = [counts[f"-1/{index}"] for index in range(4)]
    assert chi_square(observed, expected) < 21.1  # 3 degrees of freedom: one seed in 10,000


def test_a_sticky_split_has_the_shares_it_was_given() -> None:
    shares = [9_000, 700, 200, 100]
    table = table_of(Twin(split_of(*shares), sticky=(False, "x-user"), salt=b"fraud"))
    n = 200_000
    counts = Counter(chosen(table, {b"x-user": b"user-%06d" % i}) for i in range(n))
    assert chi_square([counts[f"-1/{i}"] for i in range(4)], [n * share / 10_000 for share in shares]) < 21.1


def chi_square(observed: Iterable[float], expected: Iterable[float]) -> float:
    return sum((o - e) ** 2 / e for o, e in zip(observed, expected, strict=True))


def test_equal_seeds_draw_equally_and_the_process_has_a_seed_of_its_own() -> None:
    table = table_of(Twin(split_of(5_000, 5_000)))
    dice.seed(7)
    first = [chosen(table) for _ in range(64)]
    assert [chosen(table) for _ in range(64)] != first
    dice.seed(7)
    assert [chosen(table) for _ in range(64)] == first


@pytest.mark.parametrize("below", [1, 2, 3, 10_000, 2**63 + 1, 2**64 - 1])
def test_the_dice_roll_as_their_twin(below: int) -> None:
    dice.seed(12345)
    twin = Dice(12345)
    assert [dice.draw(below) for _ in range(500)] == [twin.roll(below) for _ in range(500)]


# --- sticky keys


def test_the_hash_is_siphash_2_4_of_its_authors() -> None:
    k0, k1 = (int.from_bytes(bytes(range(at, at + 8)), "little") for at in (0, 8))
    assert routetwin.sip_hash(k0, k1, bytes(range(15))) == 0xA129CA6149BE45E5
    assert routetwin.sip_hash(k0, k1, b"") == 0x726FDB47DD0E0E31
    assert routetwin.sip_hash(k0, k1, bytes(range(8))) == 0x93F5F5799A932462


@given(st.binary(max_size=70), st.binary(max_size=300))
def test_keys_are_hashed_as_the_twin_hashes_them(salt: bytes, key: bytes) -> None:
    assert key_of(salt, key) == routetwin.key_of(salt, key)


def test_each_bit_of_a_key_moves_half_of_the_hash() -> None:
    key = b"customer-0001234"
    flips = []
    for bit in range(8 * len(key)):
        other = bytearray(key)
        other[bit // 8] ^= 1 << bit % 8
        flips.append((key_of(b"m", key) ^ key_of(b"m", bytes(other))).bit_count())
    assert min(flips) >= 12
    assert max(flips) <= 52
    assert 30 < sum(flips) / len(flips) < 34


def test_two_salts_send_keys_independently() -> None:
    split = split_of(5_000, 5_000)
    tables = [table_of(Twin(split, sticky=(False, "k"), salt=salt)) for salt in (b"one", b"two")]
    together = Counter(tuple(chosen(table, {b"k": b"%d" % i}) for table in tables) for i in range(20_000))
    assert chi_square(together.values(), [5_000] * 4) < 21.1


weights = st.lists(st.integers(0, 50), min_size=2, max_size=6).filter(any)


def shares(parts: Sequence[int]) -> list[int]:
    """Of 10,000, as good as whole numbers allow; the first that is not 0 takes the rest."""
    found = [10_000 * part // sum(parts) for part in parts]
    found[next(i for i, part in enumerate(parts) if part)] += 10_000 - sum(found)
    return found


@settings(max_examples=200, deadline=None)
@given(
    others=st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any),
    raised=st.integers(0, 5),
    scales=st.tuples(st.integers(0, 200), st.integers(0, 200)),
    keys=st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=20),
)
def test_raising_a_weight_moves_keys_only_to_the_raised_arm(
    others: list[int], raised: int, scales: tuple[int, int], keys: list[bytes]
) -> None:
    """And lowering it, only away from it: the others keep their proportions, and so their keys among themselves."""
    raised = min(raised, len(others))
    tables = []
    for scale in sorted(scales, reverse=True):
        found = [weight * scale for weight in others]
        found.insert(raised, 10_000 - sum(found))
        tables.append(table_of(Twin(split_of(*found), sticky=(False, "k"), salt=b"m")))
    for key in keys:
        before, after = (chosen(table, {b"k": key}) for table in tables)
        assert after in (before, f"-1/{raised}")


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 10_000), st.lists(st.binary(min_size=1, max_size=40), min_size=1))
def test_a_key_that_has_the_candidate_keeps_it_while_its_weight_is_raised(
    low: int, high: int, keys: list[bytes]
) -> None:
    low, high = sorted((low, high))
    tables = [table_of(Twin(split_of(10_000 - share, share), sticky=(False, "k"), salt=b"m")) for share in (low, high)]
    for key in keys:
        first, second = (chosen(table, {b"k": key}) for table in tables)
        assert not (first == "-1/1" and second == "-1/0")


def test_an_arm_at_zero_gets_nobody_and_one_at_a_hundred_percent_everybody() -> None:
    table = table_of(Twin(split_of(10_000, 0), sticky=(False, "k"), salt=b"m"))
    assert {chosen(table, {b"k": b"%d" % i}) for i in range(2_000)} == {"-1/0"}
    assert set(table.draws("m", 100_000)) == {"-1/0"}


def test_two_arms_of_one_version_share_its_keys() -> None:
    """An A/A comparison: both sides are the same, and neither gets all."""
    twin = Twin([Side("1", 5_000), Side("1", 5_000)], sticky=(False, "k"), salt=b"m")
    counts = Counter(chosen(table_of(twin), {b"k": b"%d" % i}) for i in range(10_000))
    assert chi_square(counts.values(), [5_000, 5_000]) < 15.2
    assert len(counts) == 2


def test_requests_without_the_key_are_drawn_at_random_and_counted() -> None:
    tally = Tally("m")
    table = table_of(Twin(split_of(5_000, 5_000), sticky=(False, "x-user"), salt=b"m"), tally)
    assert {chosen(table) for _ in range(200)} == {"-1/0", "-1/1"}
    assert tally.unkeyed == 200
    assert {chosen(table, {b"x-user": b""}) for _ in range(200)} == {"-1/0", "-1/1"}
    assert tally.unkeyed == 400
    assert len({chosen(table, {b"x-user": b"anna"}) for _ in range(200)}) == 1
    assert tally.unkeyed == 400


# --- rules


WHOLE = [Side("1", 10_000)]


def rule(name: str, *values: str, is_parameter: bool = False, is_prefix: bool = False) -> TwinRule:
    return TwinRule(is_parameter, name, is_prefix, values, WHOLE)


def test_the_first_rule_that_matches_wins() -> None:
    table = table_of(Twin(WHOLE, [rule("x-a", "1"), rule("x-b", "1"), rule("x-a", "1", "2")]))
    assert chosen(table, {b"x-a": b"1", b"x-b": b"1"}) == "0/0"
    assert chosen(table, {b"x-b": b"1", b"x-a": b"2"}) == "1/0"
    assert chosen(table, {b"x-a": b"2"}) == "2/0"
    assert chosen(table, {b"x-a": b"3", b"x-c": b"1"}) == "-1/0"


def test_equal_is_equal_in_every_byte_and_a_prefix_is_the_beginning() -> None:
    table = table_of(Twin(WHOLE, [rule("x", "acme"), rule("x", "be", is_prefix=True)]))
    values = [b"acme", b"acm", b"acme ", b"ACME", b"", b"be", b"beta", b"b", b"abe"]
    assert [chosen(table, {b"x": value})[0] for value in values] == ["0", "-", "-", "-", "-", "1", "1", "-", "-"]


def test_one_of_a_thousand_values_is_found_and_none_beside() -> None:
    values = [f"tenant-{i * 7}" for i in range(1000)]
    table = table_of(Twin(WHOLE, [rule("x", *values)]))
    found = {i for i in range(7_100) if chosen(table, {b"x": b"tenant-%d" % i}) == "0/0"}
    assert found == {i * 7 for i in range(1000)}


@pytest.mark.parametrize(
    ("value", "text"),
    [("eu", "eu"), (42, "42"), (-(2**63), str(-(2**63))), (0, "0"), (True, "true"), (False, "false")],
)
def test_a_parameter_is_compared_as_text(value: Any, text: str) -> None:
    table = table_of(Twin(WHOLE, [rule("region", text, is_parameter=True)]))
    assert chosen(table, {}, request(region=value)) == "0/0"
    assert chosen(table, {}, request(other=value)) == "-1/0"
    assert chosen(table, {}, request()) == "-1/0"
    assert chosen(table, {b"region": text.encode()}) == "-1/0"


def test_a_number_with_a_point_is_no_name() -> None:
    table = table_of(Twin(WHOLE, [rule("x", "1.5", "1", is_parameter=True)]))
    assert chosen(table, {}, request(x=1.5)) == "-1/0"


def test_of_a_parameter_that_comes_twice_the_last_counts_as_in_protobuf() -> None:
    table = table_of(Twin(WHOLE, [rule("x", "b", is_parameter=True)]))
    bodies = [request(x=value).SerializeToString() for value in ("a", "b")]
    for first, second in (bodies, bodies[::-1]):
        body = first + second
        arm = table.target("m", "", {}, body).arm
        assert arm
        assert (arm.name == "0/0") is (second is bodies[1])


def entry(name: bytes, *values: Any) -> bytes:
    """A parameter whose value came in several pieces."""
    value = b"".join(request(x=value).parameters["x"].SerializeToString() for value in values)
    inner = b"\x0a" + bytes((len(name),)) + name + b"\x12" + bytes((len(value),)) + value
    return b"\x22" + bytes((len(inner),)) + inner


@pytest.mark.parametrize(
    ("values", "matches"),
    [((7,), True), ((1.5, 7), True), (("b", 7), True), ((7, "b"), False), ((7, 1.5), False), ((7, True), False)],
)
def test_of_a_value_that_comes_in_several_pieces_the_last_counts_as_in_protobuf(values: Any, matches: bool) -> None:
    body = entry(b"x", *values)
    parsed = type(request()).FromString(body).parameters["x"]
    assert matches is (parsed.WhichOneof("parameter_choice") == "int64_param")
    arm = table_of(Twin(WHOLE, [rule("x", "7", is_parameter=True)])).target("m", "", {}, body).arm
    assert arm
    assert (arm.name == "0/0") is matches


names = st.sampled_from(["a", "b", "x-user"])
texts = st.text("abé", max_size=3)
values = st.one_of(texts, st.integers(-3, 3), st.booleans(), st.just(1.0))
splits = st.lists(st.integers(0, 5), min_size=1, max_size=4).filter(any).map(lambda parts: split_of(*shares(parts)))
rules = st.builds(
    TwinRule, st.booleans(), names, st.booleans(), st.lists(texts, min_size=1, max_size=4, unique=True), splits
)
twins = st.builds(
    Twin, splits, st.lists(rules, max_size=5), st.none() | st.tuples(st.booleans(), names), st.binary(max_size=5)
)


@settings(max_examples=200, deadline=None)
@given(
    twins,
    st.lists(
        st.tuples(st.dictionaries(names, texts, max_size=3), st.dictionaries(names, values, max_size=3)), max_size=6
    ),
    st.integers(0, 2**64 - 1),
)
def test_any_route_chooses_as_its_twin(
    twin: Twin, requests: list[tuple[dict[str, str], dict[str, Any]]], seed: int
) -> None:
    tally = Tally("m")
    table, twin.unkeyed = table_of(twin, tally), 0
    dice.seed(seed)
    own = Dice(seed)
    for given_headers, parameters in requests:
        headers = {name.encode(): value.encode() for name, value in given_headers.items()}
        message = request("m")
        for name, value in parameters.items():
            message.MergeFrom(request("m", **{name: value}))
        index, side = twin.choose(headers, message, own)
        assert chosen(table, headers, message) == f"{index}/{side}"
    assert tally.unkeyed == twin.unkeyed


@given(st.binary(max_size=60))
def test_a_message_that_is_none_has_no_parameters_and_harms_nothing(body: bytes) -> None:
    table = table_of(Twin(WHOLE, [rule("", "", is_parameter=True), rule("x", "a", is_parameter=True)]))
    arm = table.target("m", "", {}, body).arm
    assert arm


# --- what a plan refuses


@pytest.mark.parametrize(
    ("split", "reason"),
    [
        ([], "a split has no version"),
        (split_of(9_999), "add up to 9999, expected 10000"),
        (split_of(10_001), "add up to 10001, expected 10000"),
        (split_of(10_001, -1), "share: got -1"),
    ],
)
def test_a_split_that_is_none_is_refused(split: list[Side], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        table_of(Twin(split))


def test_more_names_than_there_is_room_for_are_refused() -> None:
    table_of(Twin(WHOLE, [rule(f"x-{i}", "1") for i in range(32)]))
    with pytest.raises(ValueError, match="more than 32 headers and parameters"):
        table_of(Twin(WHOLE, [rule(f"x-{i}", "1") for i in range(33)]))


# --- pins


def test_a_named_version_is_obeyed_or_refused_with_the_route_that_forbids_it() -> None:
    target, tally = Target("2", NOWHERE, Arm("m", "2", "pinned")), Tally("m")
    plan = Plan(tally, 17, targets(WHOLE))
    assert RouteTable({"m": {"": plan, "2": target}}).target("m", "2") is target
    refusal = refused(RouteTable({"m": {"": plan, "2": plan}}).target, "m", "2")
    assert refusal.code == 9
    assert refusal.text == (
        "model_version of model 'm': got '2', but its route (generation 17) forbids to name a version "
        "(pinned: forbid); leave model_version empty"
    )
    assert tally.forbidden == 1


def test_what_is_drawn_for_a_version_that_does_not_serve_says_which() -> None:
    route = Route("m", 1)
    plan = Plan(Tally("m"), 1, [(Target("2", "LOADING", None, route), 10_000)])
    with pytest.raises(Refusal, match=r"^model 'm' version '2' does not serve: LOADING$"):
        RouteTable({"m": {"": plan}}).lookup("m")


# --- shadows


def shadowed(share: int, sticky: tuple[bool, bytes] | None = None) -> tuple[RouteTable, ShadowSpec]:
    spec = ShadowSpec("9", NOWHERE, None, share, b"m", ShadowLoad(), 1, 1, 1)
    route = Route("m", 1, shadows=[spec])
    split = [(Target(version, NOWHERE, Arm("m", version, version), route), 5_000) for version in ("1", "2")]
    return RouteTable({"m": {"": Plan(Tally("m"), 1, split, [], sticky, b"m")}}), spec


def test_a_shadow_is_drawn_as_often_as_it_says_and_independently_of_the_arm() -> None:
    dice.seed(1)
    for sticky in (None, (False, b"k")):
        table, _ = shadowed(2_500, sticky)
        counts: Counter[tuple[str, bool]] = Counter()
        for i in range(40_000):
            target, drawn = table.shadowed("m", {b"k": b"%d" % i})
            counts[target.version, drawn[0]] += 1
        expected = {("1", True): 5_000, ("1", False): 15_000, ("2", True): 5_000, ("2", False): 15_000}
        assert chi_square([counts[key] for key in expected], expected.values()) < 21.1


def test_a_key_is_shadowed_always_or_never_and_stays_when_the_share_is_raised() -> None:
    sets = []
    for share in (0, 1_000, 5_000, 10_000):
        table, _ = shadowed(share, (False, b"k"))
        drawn = [{i for i in range(500) if table.shadowed("m", {b"k": b"%d" % i})[1][0]} for _ in range(2)]
        assert drawn[0] == drawn[1]
        sets.append(drawn[0])
    assert sets[0] == set()
    assert sets[0] < sets[1] < sets[2] < sets[3] == set(range(500))


# --- memory


def test_a_table_that_is_replaced_leaves_nothing_behind() -> None:
    arm = Arm("m", "1", "stable")
    gc.collect()
    before = len(gc.get_objects())
    for generation in range(1000):
        route = Route("m", generation, fallback=Target("2", NOWHERE, arm), fallback_on=7)
        rules = [(False, b"x", False, [b"a"], [(Target("1", NOWHERE, arm, route), 10_000)])]
        plan = Plan(Tally("m"), generation, [(Target("1", NOWHERE, arm, route), 10_000)], rules, (True, b"user"), b"m")
        RouteTable({"m": {"": plan, "1": plan}}).target("m")
    del route, rules, plan
    assert not gc.collect()  # no cycle: it was gone when it was replaced
    assert abs(len(gc.get_objects()) - before) < 50
