"""Values of a batch, counted: may run without the GIL, cannot fail."""
from libc.math cimport sqrt
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, memset

from gateway.native.datatype cimport (
    DT_BF16, DT_BOOL, DT_BYTES, DT_FP16, DT_FP32, DT_FP64, DT_INT8, DT_INT16, DT_INT32, DT_INT64, DT_UINT8, DT_UINT16, DT_UINT32, DT_UINT64)
from gateway.native.others cimport KEPT_TEXT_BYTES, Counter, Others, others_new, others_note
from gateway.native.sketch cimport (
    BLOCK_ROWS, CELL_MISSING, CELL_OTHER, GW_NO_NUMBER, Span, bfloat_to_double, count_block, find_number, find_text, half_to_double,
    hash_number, hash_text, is_whole)
from gateway.native.summary cimport (
    Summary, greatest_of, least_of, mean_of, norm_of, project, sign_word, start_summary, std_of, summarise)
from gateway.native.tileplan cimport (
    COLUMN_WORDS, STATISTIC_LENGTH, STATISTIC_MAX, STATISTIC_MEAN, STATISTIC_MIN, STATISTIC_NONE, STATISTIC_NORM, STATISTIC_PROJECTION,
    STATISTIC_STD, Column)

cdef enum:
    CHUNK = 256               # values of a large tensor looked at together, four words of signs


cdef void count_rows(const Watched* watched, const Source* sources, uint64_t* cells, Others** others, const int64_t* rows,
                     int64_t n_rows, Part part) noexcept nogil:
    """Column by column in blocks of rows, so that a block's values stay in the cache."""
    cdef int64_t at[BLOCK_ROWS]
    cdef double x[BLOCK_ROWS]
    cdef const Source* source
    cdef const Column* column
    cdef int64_t start = 0
    cdef int n, i, k, n_columns = watched.n_columns
    while start < n_rows:
        n = <int>min(n_rows - start, <int64_t>BLOCK_ROWS)
        for k in range(n):
            at[k] = rows[start + k] if rows != NULL else start + k
        for i in range(n_columns):
            column = &watched.columns[i]
            source = &sources[watched.bindings[i].source]
            if column.statistic != STATISTIC_NONE or part == (PART_UNSTAGED if source.is_staged else PART_STAGED):
                continue
            if column.kind == COLUMN_WORDS:
                count_words(column, source, at, n, cells + column.first, &others[column.other])
            else:
                load(source, column.index, at, n, x)
                count_block(&column.bins, x, n, cells + column.first)
        for i in range(watched.n_sources):
            if watched.first_summary[i] >= 0 and part != PART_STAGED:
                for k in range(n):
                    if (sources[i].n_seen + start + k) % every_nth(&sources[i]) == 0:
                        count_summaries(watched, &sources[i], watched.first_summary[i], at[k], cells)
        start += n


cdef void load(const Source* source, int64_t index, const int64_t* at, int n, double* x) noexcept nogil:
    """One value of each row; a row that is too short for it has NaN."""
    cdef int64_t row = source.row_elements
    cdef int i, datatype = source.datatype
    cdef const uint8_t* data = source.data
    if index >= row:
        for i in range(n):
            x[i] = GW_NO_NUMBER
    elif datatype == DT_FP32:
        for i in range(n):
            x[i] = (<const float*>data)[at[i] * row + index]
    elif datatype == DT_FP64:
        for i in range(n):
            x[i] = (<const double*>data)[at[i] * row + index]
    elif datatype == DT_INT64:
        for i in range(n):
            x[i] = <double>(<const int64_t*>data)[at[i] * row + index]
    elif datatype == DT_INT32:
        for i in range(n):
            x[i] = (<const int32_t*>data)[at[i] * row + index]
    elif datatype == DT_FP16:
        for i in range(n):
            x[i] = half_to_double((<const uint16_t*>data)[at[i] * row + index])
    elif datatype == DT_BF16:
        for i in range(n):
            x[i] = bfloat_to_double((<const uint16_t*>data)[at[i] * row + index])
    elif datatype == DT_UINT8 or datatype == DT_BOOL:
        for i in range(n):
            x[i] = data[at[i] * row + index]
    elif datatype == DT_INT8:
        for i in range(n):
            x[i] = (<const int8_t*>data)[at[i] * row + index]
    elif datatype == DT_UINT16:
        for i in range(n):
            x[i] = (<const uint16_t*>data)[at[i] * row + index]
    elif datatype == DT_INT16:
        for i in range(n):
            x[i] = (<const int16_t*>data)[at[i] * row + index]
    elif datatype == DT_UINT32:
        for i in range(n):
            x[i] = (<const uint32_t*>data)[at[i] * row + index]
    elif datatype == DT_UINT64:
        for i in range(n):
            x[i] = <double>(<const uint64_t*>data)[at[i] * row + index]


cdef inline int64_t whole(const Source* source, int64_t at) noexcept nogil:
    """An element of a tensor of whole numbers, as 64 bits."""
    if source.datatype == DT_INT64:
        return (<const int64_t*>source.data)[at]
    if source.datatype == DT_INT32:
        return (<const int32_t*>source.data)[at]
    if source.datatype == DT_UINT8 or source.datatype == DT_BOOL:
        return source.data[at]
    if source.datatype == DT_INT8:
        return (<const int8_t*>source.data)[at]
    if source.datatype == DT_UINT16:
        return (<const uint16_t*>source.data)[at]
    if source.datatype == DT_INT16:
        return (<const int16_t*>source.data)[at]
    if source.datatype == DT_UINT32:
        return (<const uint32_t*>source.data)[at]
    return (<const int64_t*>source.data)[at]


cdef void count_words(const Column* column, const Source* source, const int64_t* at, int n, uint64_t* cells,
                      Others** others) noexcept nogil:
    cdef uint64_t* after = cells + column.words.n_words
    cdef int64_t row = source.row_elements, index = column.index, number
    cdef bint is_real = source.datatype == DT_FP32 or source.datatype == DT_FP64 or source.datatype == DT_FP16 or source.datatype == DT_BF16
    cdef double x[BLOCK_ROWS]
    cdef uint64_t hashed
    cdef Span text
    cdef int i, found
    if index >= row:
        after[CELL_MISSING] += n
        return
    if source.datatype == DT_BYTES:
        for i in range(n):
            text = source.texts[at[i] * row + index]
            if text.len == 0:
                after[CELL_MISSING] += 1
                continue
            hashed = hash_text(text)
            found = find_text(&column.words, text, hashed)
            if found >= 0:
                cells[found] += 1
            else:
                after[CELL_OTHER] += 1
                note_text(others, hashed, text)
        return
    if is_real:
        load(source, index, at, n, x)
    for i in range(n):
        if not is_real:
            number = whole(source, at[i] * row + index)
        elif x[i] != x[i]:
            after[CELL_MISSING] += 1
            continue
        elif not is_whole(x[i], &number):
            after[CELL_OTHER] += 1
            note_real(others, x[i])
            continue
        hashed = hash_number(<uint64_t>number)
        found = find_number(&column.words, <uint64_t>number, hashed)
        if found >= 0:
            cells[found] += 1
        else:
            after[CELL_OTHER] += 1
            note_whole(others, hashed, number, source.datatype == DT_UINT64)


cdef Counter* note(Others** others, uint64_t hashed) noexcept nogil:
    if others[0] == NULL:
        others[0] = others_new()
        if others[0] == NULL:
            return NULL                                       # it counts as OTHER, and is told apart no further
    return others_note(others[0], hashed)


cdef void note_text(Others** others, uint64_t hashed, Span text) noexcept nogil:
    cdef Counter* counter = note(others, hashed)
    if counter != NULL:
        counter.length = <uint8_t>min(text.len, <size_t>KEPT_TEXT_BYTES)
        memcpy(counter.text, text.ptr, counter.length)


cdef void note_whole(Others** others, uint64_t hashed, int64_t number, bint is_unsigned) noexcept nogil:
    cdef Counter* counter = note(others, hashed)
    if counter == NULL:
        return
    if is_unsigned:
        counter.length = <uint8_t>snprintf(<char*>counter.text, KEPT_TEXT_BYTES, "%llu", <unsigned long long>number)
    else:
        counter.length = <uint8_t>snprintf(<char*>counter.text, KEPT_TEXT_BYTES, "%lld", <long long>number)


cdef void note_real(Others** others, double x) noexcept nogil:
    cdef uint64_t bits
    cdef Counter* counter
    memcpy(&bits, &x, 8)
    counter = note(others, hash_number(bits))
    if counter != NULL:
        counter.length = <uint8_t>snprintf(<char*>counter.text, KEPT_TEXT_BYTES, "%.17g", x)


cdef inline int64_t every_nth(const Source* source) noexcept nogil:
    """Of how many rows one is summarised: the work for each row that comes is bounded."""
    return 1 + source.row_elements // SUMMARY_VALUES if source.datatype != DT_BYTES else 1


cdef void load_run(const Source* source, int64_t begin, int n, double* x) noexcept nogil:
    """Values that lie one after the other."""
    cdef int64_t at[CHUNK]
    cdef const float* singles
    cdef const uint8_t* octets
    cdef Source flat
    cdef int k
    if source.datatype == DT_FP32:
        singles = <const float*>source.data + begin
        for k in range(n):
            x[k] = singles[k]
    elif source.datatype == DT_UINT8:
        octets = source.data + begin
        for k in range(n):
            x[k] = octets[k]
    else:
        memcpy(&flat, source, sizeof(Source))
        flat.row_elements = 1                                 # as a column
        for k in range(n):
            at[k] = begin + k
        load(&flat, 0, at, n, x)


cdef void count_summaries(const Watched* watched, const Source* source, int first, int64_t row, uint64_t* cells) noexcept nogil:
    """All statistics of one row of one tensor, in one pass."""
    cdef Summary summary
    cdef double x[CHUNK]
    cdef double projected[MAX_PROJECTIONS]
    cdef double value, root
    cdef int64_t n = source.row_elements, begin = 0, n_bytes = 0, word
    cdef bint has_sums = False, has_values = False
    cdef const Column* column
    cdef int i, k, at, size
    start_summary(&summary)
    memset(projected, 0, sizeof(projected))
    i = first
    while i >= 0:
        column = &watched.columns[i]
        has_values |= column.statistic != STATISTIC_LENGTH
        has_sums |= column.statistic != STATISTIC_LENGTH and column.statistic != STATISTIC_PROJECTION
        i = watched.bindings[i].next
    if source.datatype == DT_BYTES:
        for word in range(n):
            n_bytes += <int64_t>source.texts[row * n + word].len
    while has_values and begin < n:
        size = <int>min(n - begin, <int64_t>CHUNK)
        load_run(source, row * n + begin, size, x)
        if has_sums:
            summarise(&summary, x, size)
        i, k = first, 0
        while i >= 0:
            column = &watched.columns[i]
            if column.statistic == STATISTIC_PROJECTION:
                at = 0
                while at < size:
                    projected[k] += project(x + at, min(size - at, 64), sign_word(column.seed, (begin + at) // 64))
                    at += 64
                k += 1
            i = watched.bindings[i].next
        begin += size
    root = sqrt(<double>n)
    i, k = first, 0
    while i >= 0:
        column = &watched.columns[i]
        if column.statistic == STATISTIC_LENGTH:
            value = <double>(n_bytes if source.datatype == DT_BYTES else n)
        elif n == 0:
            value = GW_NO_NUMBER
        elif column.statistic == STATISTIC_MEAN:
            value = mean_of(&summary)
        elif column.statistic == STATISTIC_STD:
            value = std_of(&summary)
        elif column.statistic == STATISTIC_MIN:
            value = least_of(&summary)
        elif column.statistic == STATISTIC_MAX:
            value = greatest_of(&summary)
        elif column.statistic == STATISTIC_NORM:
            value = norm_of(&summary)
        else:
            value = projected[k] / root
            k += 1
        value = <double><float>value
        count_block(&column.bins, &value, 1, cells + column.first)
        i = watched.bindings[i].next
