"""A route: how the requests of one model are spread over its versions, as an operator writes and reads it.

Data only, the same in YAML, JSON and the store; `compile` makes a native table of it. What is wrong with one document
is found in two steps: its form when it is read, and what it says about versions by `validate_against`, because the
versions of a model come and go. Either names the field by its path.

Arms. A split of one version has the arm `stable`; of two, the first is `stable` and the second `candidate`; of more,
each is `version-N`. The long form names them otherwise. In a rule, the arm of a single version is the rule's name, and
of several `rule/arm`: what the default and the rules count is never mixed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from gateway.config.files import faults_of, read_mapping
from gateway.errors import Code, GatewayError
from gateway.routing.fields import (
    MAX_TEXT,
    ArmName,
    Duration,
    Header,
    OptionalDuration,
    Parameter,
    Percent,
    Size,
    Text,
    Version,
    as_tuple,
    once,
)

SHARE_UNIT = 10_000
"""Shares are counted in 1/10,000, as gateway.native.route has them."""

MAX_RULES = 256
MAX_VALUES = 1000
MAX_ARMS = 32
MAX_SHADOWS = 8
"""A route is consulted for each request, and each arm has metrics of its own."""

MAX_NAMES = 32
"""Different headers and parameters that one route looks at; gateway.native.plan has room for these."""

PINNED, FALLBACK, SHADOW = "pinned", "fallback", "shadow"
RESERVED_ARMS = frozenset({PINNED, FALLBACK, SHADOW})
"""What the gateway calls arms that no split has."""


class RouteError(GatewayError):
    """`faults`: (path of the field, what is wrong with it)."""

    code = Code.INVALID_ARGUMENT

    def __init__(self, faults: list[tuple[str, str]]) -> None:
        super().__init__("\n".join(f"{field}: {text}" if field else text for field, text in faults))
        self.faults = faults


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Share(_Section):
    """One side of a split, in the long form."""

    version: Version
    weight: Percent
    arm: ArmName | None = None

    @property
    def units(self) -> int:
        """Of SHARE_UNIT."""
        return round(self.weight * (SHARE_UNIT // 100))


Short = Annotated[dict[Version, Percent], Field(min_length=1, max_length=MAX_ARMS)]
Long = Annotated[tuple[Share, ...], BeforeValidator(as_tuple), Field(min_length=1, max_length=MAX_ARMS)]
Versions = Annotated[
    Annotated[Short, Tag("by version")] | Annotated[Long, Tag("list")],
    Discriminator(lambda value: "by version" if isinstance(value, Mapping) else "list"),
]
"""{version: percent}, or a list of Share."""


class _Named(_Section):
    """Something that a request brings."""

    header: Header | None = None
    """Of HTTP, or gRPC metadata. Of a header that comes twice, the first counts."""
    parameter: Parameter | None = None
    """Of the request: text as it is, whole numbers in decimal, `true` and `false`."""

    @model_validator(mode="after")
    def _one_name(self) -> _Named:
        if (self.header is None) == (self.parameter is None):
            raise ValueError("names neither a header nor a parameter, or both; expected one of the two")
        return self

    @property
    def source(self) -> tuple[bool, bytes]:
        """(is it a parameter, its name)."""
        return self.header is None, (self.header or self.parameter or "").encode()


class Match(_Named):
    """Exactly one of header and parameter, exactly one way to compare."""

    exact: Text | None = None
    prefix: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)] | None = None
    one_of: (
        Annotated[
            tuple[Text, ...],
            BeforeValidator(as_tuple),
            AfterValidator(once),
            Field(min_length=1, max_length=MAX_VALUES),
        ]
        | None
    ) = None

    @model_validator(mode="after")
    def _one_way(self) -> Match:
        if sum(value is not None for value in (self.exact, self.prefix, self.one_of)) != 1:
            raise ValueError("compares in no way, or in several; expected one of exact, prefix and one_of")
        return self

    @property
    def values(self) -> tuple[str, ...]:
        if self.one_of is not None:
            return self.one_of
        return (self.exact if self.exact is not None else self.prefix or "",)


class Rule(_Section):
    """Its split, for the requests that match and that no rule before it took."""

    name: ArmName | None = None
    """Default: rule-N, by its place from 1."""
    match: Match
    versions: Versions


class Sticky(_Named):
    """Requests with one key go to one version, as long as its weight is not lowered; a request without the key is drawn
    at random.
    """

    salt: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)] | None = None
    """Keys fall anew under another salt. Default: the model's name."""


class Shadow(_Section):
    """A version that gets copies of requests; nobody sees its answers but the comparison. The bounds are in flight."""

    version: Version
    percent: Percent = 100
    max_rows: Annotated[int, Field(ge=1, le=2**31 - 1)] = 1024
    max_bytes: Size = 64 * 2**20
    max_concurrency: Annotated[int, Field(ge=1, le=2**31 - 1)] = 64

    @property
    def units(self) -> int:
        return round(self.percent * (SHARE_UNIT // 100))


Condition = Literal["error", "circuit_open", "timeout"]


class Fallback(_Section):
    """Who answers when the version that was drawn cannot."""

    version: Version
    on: Annotated[tuple[Condition, ...], BeforeValidator(as_tuple), AfterValidator(once), Field(min_length=1)] = (
        "error",
        "circuit_open",
        "timeout",
    )


class Circuit(_Section):
    """After so many failures in a row a version is left alone for a while, then tried with a few requests."""

    failures: Annotated[int, Field(ge=1, le=1_000_000)] = 5
    open_for_us: Annotated[Duration, Field(alias="open_for", ge=1000)] = 5_000_000
    probes: Annotated[int, Field(ge=1, le=1000)] = 1


class Route(_Section):
    """See the README for one with everything in it."""

    versions: Versions
    rules: Annotated[tuple[Rule, ...], BeforeValidator(as_tuple), Field(max_length=MAX_RULES)] = ()
    sticky: Sticky | None = None
    shadows: Annotated[tuple[Shadow, ...], BeforeValidator(as_tuple), Field(max_length=MAX_SHADOWS)] = ()
    fallback: Fallback | None = None
    pinned: Literal["obey", "forbid"] = "obey"
    """What happens to a request that names its version."""
    circuit: Circuit | Literal["none"] | None = None
    """Default: the circuit above when there is a fallback, else none: then an open one would only fail requests sooner.
    """
    keep_us: Annotated[OptionalDuration, Field(alias="keep")] = None
    """How long a version that lost its last traffic stays loaded and warm."""

    @classmethod
    def only(cls, version: str) -> Route:
        """Everything to one version."""
        return cls(versions={version: 100})

    @staticmethod
    def json_schema() -> dict[str, Any]:
        return Route.model_json_schema(by_alias=True)

    def document(self) -> dict[str, Any]:
        """As JSON, without what is at its default. Reading it gives this route again, whatever becomes of the order of
        its keys: where the order of versions names the arms, they are a list.
        """
        dumped = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        dumped["versions"] = _ordered(self.versions)
        for rule, written in zip(self.rules, dumped.get("rules", ()), strict=True):
            written["versions"] = _ordered(rule.versions)
        return dumped

    # --- questions

    def splits(self) -> Iterator[tuple[str, str, tuple[Share, ...]]]:
        """(path, name of its rule, shares with the arms they count on): the default's first, then each rule's."""
        yield "versions", "", shares_of(self.versions)
        for index, rule in enumerate(self.rules):
            name = self.rule_name(index)
            yield f"rules[{index}].versions", name, shares_of(rule.versions, name)

    def rule_name(self, index: int) -> str:
        return self.rules[index].name or f"rule-{index + 1}"

    def versions_used(self) -> set[str]:
        """All that must be loaded for it to do what it says: also shadows, the fallback, and shares of 0."""
        used = {share.version for _, _, shares in self.splits() for share in shares}
        used.update(shadow.version for shadow in self.shadows)
        return used | ({self.fallback.version} if self.fallback else set())

    def versions_answering(self) -> set[str]:
        """Whom a request may be drawn for."""
        return {share.version for _, _, shares in self.splits() for share in shares if share.units}

    @property
    def is_compared(self) -> bool:
        """Whether workers count two versions side by side: a candidate is drawn beside stable, or copied to."""
        return bool(self.shadows) or any(share.arm == "candidate" for share in shares_of(self.versions))

    @property
    def is_on_trial(self) -> bool:
        """Whether it writes out who the candidate is, as a rollout does: then a worker takes the weight from one that
        harms everybody. A split that names no arms is an operator's own affair.
        """
        written = () if isinstance(self.versions, Mapping) else self.versions
        return any(share.arm == "candidate" for share in written)

    def circuit_in_force(self) -> Circuit | None:
        if self.circuit is None:
            return Circuit() if self.fallback else None
        return None if self.circuit == "none" else self.circuit

    def default_version(self) -> str:
        """Of its default split the heaviest, the first of equals: what is said about the model as a whole."""
        shares = shares_of(self.versions)
        return max(shares, key=lambda share: share.units).version


def shares_of(versions: Mapping[str, int | float] | tuple[Share, ...], rule: str = "") -> tuple[Share, ...]:
    """The long form of either, every arm named; `rule` is the name of the rule whose split it is."""
    if isinstance(versions, Mapping):
        written = [Share(version=version, weight=weight) for version, weight in versions.items()]
    else:
        written = list(versions)
    names = {1: ["stable"], 2: ["stable", "candidate"]}.get(len(written))
    shares = []
    for index, share in enumerate(written):
        arm = share.arm or (names[index] if names else f"version-{share.version}")
        if rule:
            arm = rule if len(written) == 1 and not share.arm else f"{rule}/{arm}"
        shares.append(share.model_construct(version=share.version, weight=share.weight, arm=arm))
    return tuple(shares)


def _ordered(versions: Mapping[str, int | float] | tuple[Share, ...]) -> Any:
    if isinstance(versions, Mapping):
        if len(versions) != 2 or list(versions) == sorted(versions):
            return dict(sorted(versions.items()))
        return [{"version": version, "weight": weight} for version, weight in versions.items()]
    return [share.model_dump(mode="json", exclude_none=True) for share in versions]


def parse(document: Any) -> Route:
    """RouteError names each faulty field, what came and what was expected."""
    try:
        return Route.model_validate(document)
    except ValidationError as error:
        raise RouteError(faults_of(error, document, Route)) from None


def load(path: Path) -> Route:
    """A YAML or JSON file. ConfigError or RouteError."""
    return parse(read_mapping(path))


def validate_against(route: Route, known: Mapping[str, str]) -> list[tuple[str, str]]:
    """What is wrong with it, as (path of the field, text); empty when nothing is. `known`: version -> its state, where
    `retired` is the only one that cannot be routed to.
    """
    faults: list[tuple[str, str]] = []
    splits = list(route.splits())
    for path, _, shares in splits:
        for share, where in zip(shares, _paths(route, path), strict=True):
            faults += _version_faults(where, share.version, known)
        total = sum(share.units for share in shares)
        if total != SHARE_UNIT:
            faults.append((path, f"the weights add up to {total / 100:g}, expected 100"))
    faults += _arm_faults(route, splits)
    whole = {share.version for _, _, shares in splits for share in shares if share.units}
    alone = next(iter(whole)) if len(whole) == 1 else None
    shadows = Counter(shadow.version for shadow in route.shadows)
    for index, shadow in enumerate(route.shadows):
        faults += _version_faults(f"shadows[{index}].version", shadow.version, known)
        if shadow.version == alone:
            text = f"version {alone} would shadow itself: it answers every request of this route"
            faults.append((f"shadows[{index}].version", text))
        if shadows[shadow.version] > 1 and shadow.version in [other.version for other in route.shadows[:index]]:
            faults.append((f"shadows[{index}].version", f"version {shadow.version} is a shadow already, expected once"))
    if route.fallback:
        faults += _version_faults("fallback.version", route.fallback.version, known)
        if route.fallback.version == alone:
            text = f"version {alone} would fall back to itself: it answers every request of this route"
            faults.append(("fallback.version", text))
    names = {(sought.source) for sought in (*(rule.match for rule in route.rules), route.sticky) if sought}
    if len(names) > MAX_NAMES:
        faults.append(("rules", f"look at {len(names)} different headers and parameters, expected {MAX_NAMES} at most"))
    return faults


def _paths(route: Route, path: str) -> list[str]:
    """Where each version of the split at `path` is written."""
    index = path.removeprefix("rules[").partition("]")[0]
    versions = route.rules[int(index)].versions if index != path else route.versions
    if isinstance(versions, Mapping):
        return [f"{path}.{version}" for version in versions]
    return [f"{path}[{number}].version" for number in range(len(versions))]


def _version_faults(path: str, version: str, known: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    here = ", ".join(sorted((v for v, state in known.items() if state.lower() != "retired"), key=_number)) or "none"
    if version not in known:
        yield path, f"no such version; versions here: {here}"
    elif known[version].lower() == "retired":
        yield path, f"version {version} is retired; versions here: {here}"


def _number(version: str) -> tuple[int, str]:
    return (int(version) if version.isdigit() else 0, version)


def _arm_faults(route: Route, splits: list[tuple[str, str, tuple[Share, ...]]]) -> Iterator[tuple[str, str]]:
    rules: dict[str, int] = {}
    for index in range(len(route.rules)):
        name = route.rule_name(index)
        if name in rules:
            yield f"rules[{index}].name", f'"{name}" is the name of rules[{rules[name]}] already, expected another'
        rules.setdefault(name, index)
    taken: dict[str, str] = {}
    for path, rule, shares in splits:
        if rule and path != f"rules[{rules[rule]}].versions":
            continue  # its name is another's: that has been said
        for share in shares:
            assert share.arm
            if share.arm in RESERVED_ARMS:
                yield path, f'the arm "{share.arm}" is the gateway\'s own, expected another name'
            elif share.arm in taken:
                yield path, f'the arm "{share.arm}" is in {taken[share.arm]} already, expected another name'
            taken.setdefault(share.arm, path)
