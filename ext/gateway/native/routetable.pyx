"""Model and version to lane, without allocation."""
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free

from gateway.native.cursor cimport Span, span_equals
from gateway.native.lane cimport Lane
from gateway.native.refusal cimport NOT_FOUND, UNAVAILABLE

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


cdef class RouteTable:
    """RouteTable(models): {model: {version: Lane, or the reason why it does not serve}}; version "" is what an unversioned request gets."""

    def __cinit__(self, dict models not None):
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
            for version, target in versions.items():
                self._insert(model, version, target)

    def __dealloc__(self):
        free(self.entries)

    cdef int _insert(self, str model, str version, object target) except -1:
        cdef RouteEntry* entry
        cdef bytes model_bytes = model.encode(), version_bytes = version.encode()
        cdef Span model_span, version_span
        self.keep += [model_bytes, version_bytes, target]
        model_span.ptr, model_span.len = <const uint8_t*><char*>model_bytes, len(model_bytes)
        version_span.ptr, version_span.len = <const uint8_t*><char*>version_bytes, len(version_bytes)
        entry = self._find(model_span, version_span)
        entry.hash = hash_names(model_span, version_span)
        entry.model, entry.version = model_span, version_span
        if isinstance(target, Lane):
            entry.lane = <void*>target
        elif isinstance(target, str):
            entry.reason = <void*>target
        else:
            raise TypeError(f"a route leads to a Lane or to a reason, got {type(target).__name__}")
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

    cdef Lane choose(self, Span model, Span version):
        cdef RouteEntry* entry = self._find(model, version)
        return <Lane>entry.lane if entry.lane != NULL else None

    cdef object refuse(self, Span model, Span version):
        cdef RouteEntry* entry = self._find(model, version)
        name = model.ptr[:min(model.len, MAX_SHOWN)].decode("utf-8", "replace") if model.len else ""
        number = version.ptr[:min(version.len, MAX_SHOWN)].decode("utf-8", "replace") if version.len else ""
        if entry.hash:
            what = f"model '{name}' version '{number}'" if number else f"model '{name}'"
            return Refusal(UNAVAILABLE, f"{what} does not serve: {<object>entry.reason if entry.reason != NULL else 'unloaded'}")
        if name not in self.versions:
            known = ", ".join(sorted(self.versions)[:20]) or "none"
            got = f"model_name: got '{name}'" if name else "model_name is empty"
            return Refusal(NOT_FOUND, f"{got}, expected one of {known}")
        return Refusal(
            NOT_FOUND,
            f"model_version of model '{name}': got '{number}', expected one of {', '.join(self.versions[name]) or 'none'}")

    def lookup(self, str model not None, str version not None=""):
        """What a request for it gets: the Lane, or a Refusal raised."""
        cdef bytes model_bytes = model.encode(), version_bytes = version.encode()
        cdef Span model_span, version_span
        model_span.ptr, model_span.len = <const uint8_t*><char*>model_bytes, len(model_bytes)
        version_span.ptr, version_span.len = <const uint8_t*><char*>version_bytes, len(version_bytes)
        lane = self.choose(model_span, version_span)
        if lane is None:
            raise self.refuse(model_span, version_span)
        return lane


def _by_number(version):
    return (0, int(version), "") if version.isdigit() else (1, 0, version)
