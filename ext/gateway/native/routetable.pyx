"""Model and version to where a request goes, without allocation."""
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from gateway.native.cursor cimport Span, span_equals
from gateway.native.lane cimport Lane
from gateway.native.noted cimport Noted, note_all, release_noted
from gateway.native.plan cimport Plan
from gateway.native.refusal cimport FAILED_PRECONDITION, NOT_FOUND, UNAVAILABLE
from gateway.native.route cimport Asked, ShadowSpec, Target

from gateway.native.refusal import Refusal

cdef size_t MAX_SHOWN = 200             # bytes of a caller's name in an error; more than a folder's name can have, less than a message


cdef inline uint64_t hash_names(Span model, Span version) noexcept nogil:
    """FNV-1a over model, NUL, version. Keys are the operator's, so nobody can aim at collisions."""
    cdef uint64_t h = 0xCBF29CE484222325u
    cdef size_t i
    for i in range(model.len):
        h = (h ^ model.ptr[i]) * 0x100000001B3u
    h *= 0x100000001B3u
    for i in range(version.len):
        h = (h ^ version.ptr[i]) * 0x100000001B3u
    return h if h else 1


cdef inline str shown(Span name):
    return name.ptr[:min(name.len, MAX_SHOWN)].decode("utf-8", "replace") if name.len else ""


cdef class RouteTable:
    """RouteTable(models): {model: {version: what}}, where version "" is what an unversioned request gets and what is a Lane, the reason
    why there is none, a Target, or a Plan that draws one; a Plan for a named version forbids to name it."""

    def __cinit__(self, models not None):
        cdef size_t n = sum([len(versions) for versions in models.values()])
        cdef size_t size = 16
        while size < 2 * n:
            size *= 2
        self.mask = size - 1
        self.keep = []
        self.versions = {model: sorted([version for version in versions if version], key=_by_number) for model, versions in models.items()}
        self.entries = <RouteEntry*>calloc(size, sizeof(RouteEntry))
        if self.entries == NULL:
            raise MemoryError("no memory for a route table")
        for model, versions in models.items():
            for version, what in versions.items():
                self._insert(model, version, what)

    def __dealloc__(self):
        free(self.entries)

    cdef int _insert(self, str model, str version, object what) except -1:
        cdef RouteEntry* entry
        cdef bytes model_bytes = model.encode(), version_bytes = version.encode()
        cdef Span model_span, version_span
        if not isinstance(what, (Plan, Target)):
            what = Target((<Lane>what).signature.version if isinstance(what, Lane) else version, what)
        self.keep += [model_bytes, version_bytes, what]
        model_span.ptr, model_span.len = <const uint8_t*><char*>model_bytes, len(model_bytes)
        version_span.ptr, version_span.len = <const uint8_t*><char*>version_bytes, len(version_bytes)
        entry = self._find(model_span, version_span)
        entry.hash = hash_names(model_span, version_span)
        entry.model, entry.version = model_span, version_span
        if isinstance(what, Plan):
            entry.plan = <void*>what
            if (<Plan>what).wants_headers:
                self.wants_headers = True
        else:
            entry.target = <void*>what
        return 0

    cdef RouteEntry* _find(self, Span model, Span version) noexcept:
        """The entry, or the empty one where it would be."""
        cdef uint64_t h = hash_names(model, version)
        cdef size_t at = h & self.mask
        cdef RouteEntry* entry
        while True:
            entry = &self.entries[at]
            if entry.hash == 0 or (entry.hash == h and span_equals(entry.model, model) and span_equals(entry.version, version)):
                return entry
            at = (at + 1) & self.mask

    cdef Target choose(self, Asked* asked):
        cdef RouteEntry* entry = self._find(asked.model, asked.version)
        asked.has_key = False
        if entry.target != NULL:
            return <Target>entry.target
        if entry.plan != NULL and asked.version.len == 0:
            return (<Plan>entry.plan).choose(asked)
        return None

    cdef object refuse(self, const Asked* asked, Target target):
        cdef RouteEntry* entry = self._find(asked.model, asked.version)
        cdef Plan plan
        name, number = shown(asked.model), shown(asked.version)
        if target is not None:
            number = number or (target.version if target.route is not None else "")
            what = f"model '{name}' version '{number}'" if number else f"model '{name}'"
            return Refusal(UNAVAILABLE, f"{what} does not serve: {target.reason or 'unloaded'}")
        if entry.plan != NULL:
            plan = <Plan>entry.plan
            plan.tally.forbidden += 1
            return Refusal(
                FAILED_PRECONDITION,
                f"model_version of model '{name}': got '{number}', but its route (generation {plan.generation}) forbids to name a version "
                "(pinned: forbid); leave model_version empty")
        if name not in self.versions:
            known = ", ".join(sorted(self.versions)[:20]) or "none"
            # Triton's own words: its examples, and callers written after them, look for these.
            got = f"Request for unknown model: '{name}' is not found" if name else "model_name is empty"
            return Refusal(NOT_FOUND, f"{got}, expected one of {known}")
        return Refusal(
            NOT_FOUND,
            f"model_version of model '{name}': got '{number}', expected one of {', '.join(self.versions[name]) or 'none'}")

    # --- for tests and tools ---------------------------------------------------------------------------------------------------

    def target(self, str model not None, str version not None="", dict headers=None, bytes body not None=b""):
        """Where one request for it goes: a Target, or a Refusal raised. Headers are bytes, `body` is its ModelInferRequest."""
        cdef bytes model_bytes = model.encode(), version_bytes = version.encode()
        cdef Asked asked
        cdef Noted noted
        cdef Target target
        memset(&asked, 0, sizeof(asked))
        memset(&noted, 0, sizeof(noted))
        asked.model.ptr, asked.model.len = model_bytes, len(model_bytes)
        asked.version.ptr, asked.version.len = version_bytes, len(version_bytes)
        asked.body.ptr, asked.body.len = body, len(body)
        asked.headers = &noted
        try:
            if headers is not None:
                note_all(&noted, headers)
            target = self.choose(&asked)
        finally:
            release_noted(&noted)
        if target is None:
            raise self.refuse(&asked, None)
        return target

    def shadowed(self, str model not None, dict headers=None):
        """target(), and for each shadow of its route whether it is drawn."""
        cdef bytes model_bytes = model.encode()
        cdef Asked asked
        cdef Noted noted
        cdef Target target
        cdef ShadowSpec spec
        memset(&asked, 0, sizeof(asked))
        memset(&noted, 0, sizeof(noted))
        asked.model.ptr, asked.model.len = model_bytes, len(model_bytes)
        asked.headers = &noted
        try:
            if headers is not None:
                note_all(&noted, headers)
            target = self.choose(&asked)
            return target, [spec.draws(&asked) for spec in target.route.shadows]
        finally:
            release_noted(&noted)

    def draws(self, str model not None, int64_t n):
        """How often each arm is chosen in n unpinned requests without headers, by name."""
        cdef bytes model_bytes = model.encode()
        cdef Asked asked
        cdef dict counts = {}
        memset(&asked, 0, sizeof(asked))
        asked.model.ptr, asked.model.len = model_bytes, len(model_bytes)
        for _ in range(n):
            name = self.choose(&asked).arm.name
            counts[name] = counts.get(name, 0) + 1
        return counts

    def lookup(self, str model not None, str version not None=""):
        """The Lane that answers a request for it, or a Refusal raised."""
        cdef Target target = self.target(model, version)
        cdef bytes model_bytes = model.encode(), version_bytes = version.encode()
        cdef Asked asked
        if target.lane is not None:
            return target.lane
        memset(&asked, 0, sizeof(asked))
        asked.model.ptr, asked.model.len = model_bytes, len(model_bytes)
        asked.version.ptr, asked.version.len = version_bytes, len(version_bytes)
        raise self.refuse(&asked, target)


def _by_number(version):
    return (0, int(version), "") if version.isdigit() else (1, 0, version)
