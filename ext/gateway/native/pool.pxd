# Pool: small blocks of memory for nghttp2, which takes and gives back eight for each request.
#
# malloc keeps seven free blocks of a size at hand; a connection with sixteen streams frees more at a time, and the rest goes through its
# slow path: a tenth of a small request. Here a freed block waits in a list of its size for the next request, up to a bound.
# One pool for the process, guarded by the GIL: sessions live on one loop's thread, and hold it.
cdef enum:
    STEP_BYTES = 32                     # between two sizes
    MAX_POOLED_BYTES = 1024             # larger blocks are malloc's: buffers, kept as long as their session

cdef struct Block:                      # before each block, as large as malloc's alignment
    size_t size                         # its size in steps; 0: malloc's own
    Block* next                         # while it is free

cdef void* pool_malloc(size_t n, void* unused) noexcept nogil
cdef void pool_free(void* block, void* unused) noexcept nogil
cdef void* pool_calloc(size_t count, size_t n, void* unused) noexcept nogil
cdef void* pool_realloc(void* block, size_t n, void* unused) noexcept nogil
