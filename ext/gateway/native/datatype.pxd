# The tensor datatypes of the Open Inference Protocol: numbering, sizes, names and which typed-contents field carries each.
from gateway.native.cursor cimport Span


cdef enum Datatype:
    DT_INVALID = 0
    DT_BOOL = 1
    DT_UINT8 = 2
    DT_UINT16 = 3
    DT_UINT32 = 4
    DT_UINT64 = 5
    DT_INT8 = 6
    DT_INT16 = 7
    DT_INT32 = 8
    DT_INT64 = 9
    DT_FP16 = 10
    DT_FP32 = 11
    DT_FP64 = 12
    DT_BYTES = 13             # elements of variable size: u32-LE length, then the bytes
    DT_BF16 = 14
    N_DATATYPES = 15


cdef extern from *:
    """
    typedef struct { const char* name; int name_len; int size; int contents_field; const char* contents_name; } gw_datatype_info;
    static const gw_datatype_info GW_DATATYPES[15] = {
        {"INVALID", 7, 0, 0, ""},
        {"BOOL", 4, 1, 1, "bool_contents"},
        {"UINT8", 5, 1, 4, "uint_contents"}, {"UINT16", 6, 2, 4, "uint_contents"},
        {"UINT32", 6, 4, 4, "uint_contents"}, {"UINT64", 6, 8, 5, "uint64_contents"},
        {"INT8", 4, 1, 2, "int_contents"}, {"INT16", 5, 2, 2, "int_contents"},
        {"INT32", 5, 4, 2, "int_contents"}, {"INT64", 5, 8, 3, "int64_contents"},
        {"FP16", 4, 2, 0, ""}, {"FP32", 4, 4, 6, "fp32_contents"}, {"FP64", 4, 8, 7, "fp64_contents"},
        {"BYTES", 5, 0, 8, "bytes_contents"}, {"BF16", 4, 2, 0, ""},
    };
    """
    ctypedef struct gw_datatype_info:
        const char* name
        int name_len
        int size
        int contents_field
        const char* contents_name
    const gw_datatype_info GW_DATATYPES[15]


cdef inline int datatype_size(int datatype) noexcept nogil:
    return GW_DATATYPES[datatype].size


cdef inline bint datatype_is(int datatype, Span name) noexcept nogil:
    cdef int i
    if name.len != <size_t>GW_DATATYPES[datatype].name_len:
        return False
    for i in range(GW_DATATYPES[datatype].name_len):
        if name.ptr[i] != <unsigned char>GW_DATATYPES[datatype].name[i]:
            return False
    return True
