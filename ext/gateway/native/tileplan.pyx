"""A profile's columns, compiled for counting."""
cimport cython
from libc.stdint cimport int32_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free

from gateway.native.sketch cimport (
    CELL_GREATEST, CELL_LEAST, GW_INFINITE, N_AFTER_COUNTS, N_AFTER_WORDS, Span, Word, hash_number, hash_text)

import hashlib
import json

cdef enum:
    DIGEST_BYTES = 16
    MAX_EDGES = 4096          # a tile is small: more bins than that are no summary
    MAX_WORDS = 65536

STATISTICS = (None, "mean", "std", "min", "max", "norm", "projection", "length")
_FIELDS = {"name", "role", "tensor", "index", "kind", "edges", "centre", "scale", "vocabulary", "statistic", "projection_seed"}


@cython.final
cdef class TilePlan:
    """TilePlan(columns): dictionaries with name, role (input or output), tensor, index, kind and what that kind needs: edges, centre and
    scale; or a vocabulary; or neither (kind plain: only NaN, infinities, least and greatest). ValueError names column and field."""

    def __cinit__(self, columns not None):
        cdef Column* column
        cdef int i
        self.columns, self.keep = [dict(given) for given in columns], []
        self.n_columns, self.n_cells = len(self.columns), TILE_COLUMNS
        self.column = <Column*>calloc(self.n_columns + 1, sizeof(Column))
        if self.column == NULL:
            raise MemoryError("no memory for a plan")
        names = set()
        for i in range(self.n_columns):
            given = self.columns[i]
            unknown = given.keys() - _FIELDS
            if unknown:
                raise ValueError(
                    f"column {given.get('name')!r}: got a field {min(unknown)!r}, expected some of {', '.join(sorted(_FIELDS))}")
            if given["name"] in names:
                raise ValueError(f"column {given['name']!r} comes twice, expected each name once")
            names.add(given["name"])
            column = &self.column[i]
            if given["role"] not in ("input", "output"):
                raise ValueError(f"column {given['name']!r}: role: got {given['role']!r}, expected input or output")
            column.is_output = given["role"] == "output"
            column.index = given.get("index") or 0
            if given.get("statistic") not in STATISTICS:
                raise ValueError(
                    f"column {given['name']!r}: statistic: got {given['statistic']!r}, expected one of {', '.join(STATISTICS[1:])}")
            column.statistic = <Statistic><int>STATISTICS.index(given.get("statistic"))
            column.seed = given.get("projection_seed") or 0
            if "vocabulary" in given:
                self._fill_words(column, given)
            else:
                self._fill_bins(column, given)
            column.first = self.n_cells
            self.n_cells += column.n_cells
        self.greatest = <uint64_t*>calloc(self.n_cells // 64 + 1, 8)
        if self.greatest == NULL:
            raise MemoryError("no memory for a plan")
        for i in range(self.n_columns):
            column = &self.column[i]
            if column.kind == COLUMN_BINNED:
                for cell in (CELL_LEAST, CELL_GREATEST):
                    cell += column.first + column.bins.n_edges + 1
                    self.greatest[<int>cell >> 6] |= <uint64_t>1 << (<int>cell & 63)
        canonical = json.dumps(self.columns, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
        self.digest = hashlib.sha256(canonical.encode()).digest()[:DIGEST_BYTES]

    def __dealloc__(self):
        free(self.column)
        free(self.greatest)

    cdef int _fill_bins(self, Column* column, dict given) except -1:
        edges = [float(edge) for edge in given.get("edges") or ()]
        scale = float(given.get("scale") or 0)
        if len(edges) > MAX_EDGES:
            raise ValueError(f"column {given['name']!r}: got {len(edges)} edges, expected at most {<int>MAX_EDGES}")
        for left, right in zip(edges, edges[1:]):
            if not left < right:
                raise ValueError(f"column {given['name']!r}: edges: got {left!r} before {right!r}, expected them to increase")
        if edges and not (-GW_INFINITE < edges[0] and edges[len(edges) - 1] < GW_INFINITE):
            raise ValueError(f"column {given['name']!r}: edges: got an infinite one, expected finite numbers")
        if not 0 <= scale < GW_INFINITE:
            raise ValueError(f"column {given['name']!r}: scale: got {scale!r}, expected a power of two")
        column.kind = COLUMN_BINNED
        column.bins.n_edges = len(edges)
        while 1 << column.bins.levels <= len(edges):
            column.bins.levels += 1
        tree = bytearray(8 << column.bins.levels)
        self.keep.append(tree)
        cdef double* at = <double*><char*>tree
        fill_tree(at, 1, iter(edges), 1 << column.bins.levels)
        column.bins.tree = at
        column.bins.centre = float(given.get("centre") or 0)
        column.bins.per_quantum = 1 / scale if scale else 0
        if not column.bins.per_quantum < GW_INFINITE:
            raise ValueError(f"column {given['name']!r}: scale: got {scale!r}, expected a power of two whose inverse is finite")
        column.n_cells = column.bins.n_edges + 1 + N_AFTER_COUNTS
        column.other = -1
        return 0

    cdef int _fill_words(self, Column* column, dict given) except -1:
        vocabulary = list(given["vocabulary"])
        cdef uint64_t size = 16, at, key
        cdef Word* table
        cdef Span* texts
        cdef Span text
        cdef bytes raw
        cdef int32_t i
        if len(vocabulary) > MAX_WORDS:
            raise ValueError(f"column {given['name']!r}: got {len(vocabulary)} words, expected at most {<int>MAX_WORDS}")
        while size < 2 * <uint64_t>len(vocabulary):
            size *= 2
        table_memory, texts_memory = bytearray(size * sizeof(Word)), bytearray((len(vocabulary) + 1) * sizeof(Span))
        self.keep += [table_memory, texts_memory]
        table, texts = <Word*><char*>table_memory, <Span*><char*>texts_memory
        for at in range(size):
            table[at].index = -1
        column.kind = COLUMN_WORDS
        column.words.table, column.words.mask, column.words.n_words = table, size - 1, len(vocabulary)
        is_text = bool(vocabulary) and isinstance(vocabulary[0], str)
        if is_text:
            column.words.texts = texts
        for i in range(column.words.n_words):
            word = vocabulary[i]
            if isinstance(word, str) != is_text or not isinstance(word, (str, int)):
                raise ValueError(f"column {given['name']!r}: vocabulary: got {word!r}, expected texts only or whole numbers only")
            if is_text:
                raw = word.encode()
                self.keep.append(raw)
                text.ptr, text.len = <const uint8_t*><char*>raw, len(raw)
                texts[i] = text
                key = at = hash_text(text)
            else:
                if not -(1 << 63) <= word < 1 << 64:
                    raise ValueError(f"column {given['name']!r}: vocabulary: got {word}, expected numbers of 64 bits")
                key = <uint64_t>(word & 0xFFFFFFFFFFFFFFFF)
                at = hash_number(key)
            at &= size - 1
            while table[at].index >= 0:
                if table[at].key == key and vocabulary[table[at].index] == word:
                    raise ValueError(f"column {given['name']!r}: vocabulary: {word!r} comes twice, expected each word once")
                at = (at + 1) & (size - 1)
            table[at].key, table[at].index = key, i
        column.n_cells = column.words.n_words + N_AFTER_WORDS
        column.other = self.n_others
        self.n_others += 1
        return 0

    def layout(self):
        """(first cell, n_edges or n_words, which Others or -1) of each column, for reading a tile."""
        return [
            (self.column[i].first,
             self.column[i].words.n_words if self.column[i].kind == COLUMN_WORDS else self.column[i].bins.n_edges,
             self.column[i].other)
            for i in range(self.n_columns)
        ]


cdef int fill_tree(double* tree, size_t at, object edges, size_t size) except -1:
    """In order, so that the leaves of a search count the edges that are not above a value."""
    if at >= size:
        return 0
    fill_tree(tree, 2 * at, edges, size)
    tree[at] = next(edges, GW_INFINITE)
    fill_tree(tree, 2 * at + 1, edges, size)
    return 0
