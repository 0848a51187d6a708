"""Counters of one version, arm and stage over one stretch of time."""
cimport cython
cimport numpy as cnp
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from gateway.native.cursor cimport Cursor, read_varint, write_varint
from gateway.native.others cimport (
    MAX_COUNTERS, N_REGISTERS, Others, others_free, others_merge, others_new, others_read, others_size, others_trim, others_write)
from gateway.native.tileplan cimport COLUMN_BINNED, TILE_LATENCY, TILE_REQUESTS, Column, TilePlan, is_greatest
from gateway.native.refusal cimport OK
from gateway.native.sketch cimport CELL_SQUARES, CELL_SUM

from zlib import crc32

cnp.import_array()

cdef enum:
    FORMAT = 1
    HEAD_BYTES = 19           # "GT", format, digest of the plan
    CRC_BYTES = 4


@cython.final
cdef class Tile:
    """Tile(plan): nothing counted yet."""

    def __cinit__(self, TilePlan plan not None):
        self.plan = plan
        self.cell = <uint64_t*>calloc(plan.n_cells, sizeof(uint64_t))
        self.other = <Others**>calloc(plan.n_others + 1, sizeof(void*))
        if self.cell == NULL or self.other == NULL:
            raise MemoryError("no memory for a tile")

    def __dealloc__(self):
        cdef int i
        if self.other != NULL:
            for i in range(self.plan.n_others):
                others_free(self.other[i])
        free(self.other)
        free(self.cell)

    @staticmethod
    cdef Tile new(TilePlan plan):
        return Tile(plan)

    cdef void note_request(self, int code, int64_t took_us) noexcept:
        self.cell[TILE_REQUESTS + code] += 1
        if code == OK:
            self.cell[TILE_LATENCY + latency_cell(took_us)] += 1

    # --- adding ----------------------------------------------------------------------------------------------------------------

    def add(self, Tile more not None):
        """Count in what another has counted. ValueError: it is of another plan."""
        if more.plan is not self.plan and more.plan.digest != self.plan.digest:
            raise ValueError(f"a tile of plan {more.plan.digest.hex()} cannot be added to one of plan {self.plan.digest.hex()}")
        self.merge(more)

    cdef int merge(self, Tile more) except -1:
        cdef TilePlan plan = self.plan
        cdef uint64_t* cells = self.cell
        cdef const uint64_t* theirs = more.cell
        cdef int i
        for i in range(plan.n_cells):
            if not is_greatest(plan.greatest, i):
                cells[i] += theirs[i]
            elif theirs[i] > cells[i]:
                cells[i] = theirs[i]
        for i in range(plan.n_others):
            if more.other[i] == NULL:
                continue
            if self.other[i] == NULL:
                self.other[i] = others_new()
            if self.other[i] == NULL or others_merge(self.other[i], more.other[i]) < 0:
                raise MemoryError("no memory for a tile")
        return 0

    cdef void trim(self) noexcept:
        cdef int i
        for i in range(self.plan.n_others):
            if self.other[i] != NULL and self.other[i].n > MAX_COUNTERS:
                others_trim(self.other[i], MAX_COUNTERS // 2)

    def shrink(self, uint64_t n_kept):
        """Forget all but n_kept of the values outside of each vocabulary, for who keeps many tiles; counts then lack at most what
        `others` says. Unlike add, this depends on when it is done."""
        cdef int i
        for i in range(self.plan.n_others):
            if self.other[i] != NULL and others_trim(self.other[i], n_kept) < 0:
                raise MemoryError("no memory for a tile")

    # --- as bytes: head, cells as varints with runs of zeros, others, CRC --------------------------------------------------------

    def to_bytes(self):
        """The same bytes for equal contents, whatever they were added up from."""
        cdef TilePlan plan = self.plan
        cdef size_t room = HEAD_BYTES + 10 * <size_t>plan.n_cells + plan.n_others + CRC_BYTES
        cdef uint8_t* start
        cdef uint8_t* p
        cdef int i, run
        cdef uint32_t crc
        cdef bytes digest = plan.digest, body
        for i in range(plan.n_others):
            if self.other[i] != NULL:
                room += others_size(self.other[i])
        start = p = <uint8_t*>malloc(room)
        if start == NULL:
            raise MemoryError("no memory for a tile's bytes")
        try:
            p[0], p[1], p[2] = 71, 84, FORMAT
            memcpy(p + 3, <const char*>digest, HEAD_BYTES - 3)
            p += HEAD_BYTES
            i = 0
            while i < plan.n_cells:
                if self.cell[i]:
                    p = write_varint(p, zigzag(self.cell[i]))
                    i += 1
                    continue
                run = i
                while i < plan.n_cells and self.cell[i] == 0:
                    i += 1
                p[0] = 0
                p = write_varint(p + 1, i - run)
            for i in range(plan.n_others):
                p[0] = self.other[i] != NULL
                p += 1
                if self.other[i] != NULL:
                    p = others_write(self.other[i], p)
                    if p == NULL:
                        raise MemoryError("no memory for a tile's bytes")
            body = PyBytes_FromStringAndSize(<const char*>start, p - start)
        finally:
            free(start)
        crc = crc32(body)
        return body + crc.to_bytes(CRC_BYTES, "little")

    @staticmethod
    def from_bytes(TilePlan plan not None, bytes blob not None):
        """ValueError says what is wrong with it: another format or plan, damage, or numbers that no tile has."""
        cdef Cursor c
        cdef Tile tile = Tile.new(plan)
        cdef const uint8_t* start = <const uint8_t*><const char*>blob
        cdef size_t size = len(blob)
        cdef const char* fault
        cdef uint8_t is_there
        cdef int i
        if size < HEAD_BYTES + CRC_BYTES or start[0] != 71 or start[1] != 84:
            raise ValueError(f"a tile's bytes: got {size} bytes that begin with {blob[:2]!r}, expected b'GT' and a whole tile")
        if start[2] != FORMAT:
            raise ValueError(f"a tile's bytes: got format {start[2]}, expected {<int>FORMAT}")
        if crc32(blob[:size - CRC_BYTES]) != int.from_bytes(blob[size - CRC_BYTES:], "little"):
            raise ValueError("a tile's bytes are damaged: the checksum does not fit")
        if blob[3:HEAD_BYTES] != plan.digest:
            raise ValueError(f"a tile's bytes: got one of plan {blob[3:HEAD_BYTES].hex()}, expected plan {plan.digest.hex()}")
        c.at, c.end = start + HEAD_BYTES, start + size - CRC_BYTES
        tile.read_cells(&c)
        for i in range(plan.n_others):
            if c.at == c.end or c.at[0] > 1:
                raise ValueError("a tile's bytes are damaged: the values outside of a vocabulary are missing")
            is_there = c.at[0]
            c.at += 1
            if is_there:
                tile.other[i] = others_new()
                if tile.other[i] == NULL:
                    raise MemoryError("no memory for a tile")
                fault = others_read(tile.other[i], &c)
                if fault != NULL:
                    raise ValueError(f"a tile's bytes are damaged, in the values outside of a vocabulary: {fault.decode()}")
        if c.at != c.end:
            raise ValueError(f"a tile's bytes: got {c.end - c.at} bytes more than a tile of this plan has")
        return tile

    cdef int read_cells(self, Cursor* c) except -1:
        cdef TilePlan plan = self.plan
        cdef uint64_t value
        cdef int i = 0
        while i < plan.n_cells:
            if read_varint(c, &value) < 0:
                raise ValueError(f"a tile's bytes are damaged: they end at cell {i} of {plan.n_cells}")
            if value:
                self.cell[i] = (value >> 1) ^ (0 - (value & 1))
                i += 1
                continue
            if read_varint(c, &value) < 0 or value == 0 or value > <uint64_t>(plan.n_cells - i):
                raise ValueError(f"a tile's bytes are damaged: a run of zeros at cell {i} of {plan.n_cells} is wrong")
            i += <int>value
        for i in range(plan.n_cells):
            if self.cell[i] >> 63 and not is_greatest(plan.greatest, i) and not is_moment(plan, i):
                raise ValueError(f"a tile's bytes are damaged: cell {i} counts less than nothing")
        return 0

    # --- reading ---------------------------------------------------------------------------------------------------------------

    @property
    def cells(self):
        """A copy of all cells, int64; see gateway.monitoring.tile for what they mean."""
        cdef cnp.npy_intp n = self.plan.n_cells
        array = cnp.PyArray_SimpleNew(1, &n, cnp.NPY_INT64)
        memcpy(cnp.PyArray_DATA(array), self.cell, n * sizeof(uint64_t))
        return array

    def others_of(self, int index):
        """(registers, lacking, [(text, count)] with the greatest first) of the index-th vocabulary; None: nothing is outside of it."""
        if not 0 <= index < self.plan.n_others:
            raise IndexError(f"others: got {index}, expected 0 to {self.plan.n_others - 1}")
        cdef Others* others = self.other[index]
        cdef uint64_t i
        if others == NULL:
            return None
        counted = [
            ((<char*>others.table[i].text)[:others.table[i].length], others.table[i].count)
            for i in range(others.mask + 1) if others.table[i].key
        ]
        counted.sort(key=_most_first)
        return (<char*>others.registers)[:N_REGISTERS], others.lacking, counted


def _most_first(pair):
    return -pair[1], pair[0]


cdef inline uint64_t zigzag(uint64_t value) noexcept nogil:
    """Small numbers of either sign stay small."""
    return (value << 1) ^ (0 - (value >> 63))


cdef bint is_moment(TilePlan plan, int cell):
    """A sum may be below 0, a sum of squares above 2**63."""
    cdef Column* column
    cdef int i
    for i in range(plan.n_columns):
        column = &plan.column[i]
        if column.kind == COLUMN_BINNED and cell - column.first - column.bins.n_edges - 1 in (CELL_SUM, CELL_SQUARES):
            return True
    return False


def latency_cell_of(int64_t us):
    """Which of the latency cells a time falls into."""
    return latency_cell(us)
