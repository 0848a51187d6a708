"""Tokens that an answer is reported by: made natively, read by whoever takes reports."""
cimport cython
cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.math cimport NAN, fabs
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec

from gateway.native.arm cimport Arm
from gateway.native.clock cimport monotonic_us
from gateway.native.cursor cimport Cursor, Span, cursor_over, read_varint, varint_len, write_varint
from gateway.native.request cimport Request, Stamp
from gateway.native.signature cimport Signature
from gateway.native.sticky cimport mix, sip_hash

import base64
import hashlib
import os

cnp.import_array()

PARAMETER = "gateway_request"

cdef bytes NAME_FIELD = b"\x0a\x0fgateway_request"      # key of the map's entry
cdef const char* ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
cdef double SUM_SLACK = 0.01            # of a row of probabilities, from 1: half precision is that coarse


class TokenError(ValueError):
    """`reason`: malformed, unknown (signed with another key), or forged."""

    def __init__(self, reason, text):
        super().__init__(text)
        self.reason = reason


@cython.final
cdef class Signer:
    """Signer(key=None)."""

    def __init__(self, bytes key=None):
        self.state = int.from_bytes(os.urandom(8), "little")
        if key is not None:
            self.use(key)

    def use(self, bytes key not None):
        """Sign with it from now on."""
        k0, k1, key_id = halves(key)
        self.k0, self.k1, self.key_id = k0, k1, key_id
        self.is_ready = True


cdef tuple halves(bytes key):
    """The two words of a key, and the byte by which tokens say which it was."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"key: got {len(key)} bytes, expected {KEY_BYTES}")
    return int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little"), hashlib.sha256(key).digest()[0]


cdef bytes names_of(Arm arm):
    cdef uint8_t number[20]
    cdef uint8_t* p
    if arm.named is None:
        p = write_varint(write_varint(number, <uint64_t>max(arm.stage, <int64_t>0)), <uint64_t>arm.weight)
        arm.named = named(arm.model) + named(arm.version) + named(arm.name) + <bytes>(<char*>number)[:p - number]
    return arm.named


cdef bytes named(str text):
    cdef bytes raw = text.encode()[:255]
    return bytes([len(raw)]) + raw


@cython.final
cdef class Receipts(Stamp):
    """Receipts(signer, signature, class_output=None, score_output=None, is_value=False, threshold=0.5): outputs by name."""

    def __init__(self, Signer signer not None, Signature signature not None, str class_output=None, str score_output=None, *,
                 bint is_value=False, double threshold=0.5):
        self.signer = signer
        self.class_output, self.score_output = index_of(signature, class_output), index_of(signature, score_output)
        self.is_value, self.threshold = is_value, threshold

    cdef bytes parameters_of(self, Request request, list outputs, int64_t first, int64_t n_rows):
        cdef uint8_t token[MAX_TOKEN_BYTES]
        cdef uint8_t* p = token
        cdef const uint8_t* end = token + MAX_TOKEN_BYTES - TAG_BYTES
        cdef uint8_t* count
        cdef Signer signer = self.signer
        cdef Arm arm = request.arm if request.origin is None else request.origin.arm
        cdef uint64_t unit = 0 if request.origin is None else request.origin.unit
        cdef bytes names
        cdef timespec t
        cdef uint64_t word
        cdef Span signed
        cdef int64_t row
        if not signer.is_ready or arm is None:
            return None
        try:
            names = names_of(arm)
            p[0], p[1] = FORMAT | (HAS_UNIT if unit else 0), signer.key_id
            signer.state += 0x9E3779B97F4A7C15u
            word = mix(signer.state)
            memcpy(p + 2, &word, 8)
            clock_gettime(CLOCK_REALTIME, &t)
            word = <uint64_t>t.tv_sec * 1000 + <uint64_t>(t.tv_nsec // 1000000) - <uint64_t>(
                max(monotonic_us() - request.arrived_us, <int64_t>0) // 1000)
            memcpy(p + 10, &word, 6)
            p += 16
            if unit:
                memcpy(p, &unit, 8)
                p += 8
            memcpy(p, PyBytes_AS_STRING(names), PyBytes_GET_SIZE(names))
            p += PyBytes_GET_SIZE(names)
            if request.signature.version != arm.version:
                answered = named(request.signature.version)
                memcpy(p, PyBytes_AS_STRING(answered), PyBytes_GET_SIZE(answered))
                p += PyBytes_GET_SIZE(answered)
            else:
                p[0] = 0
                p += 1
            p = write_varint(p, <uint64_t>max(n_rows, <int64_t>0))
            count = p
            count[0] = 0
            p += 1
            for row in range(min(n_rows, <int64_t>MAX_ROWS_TOLD)):
                if end - p < MAX_TEXT_BYTES + 16:
                    break
                p = self._tell(p, end, outputs, first + row)
                count[0] += 1
            signed.ptr, signed.len = token, p - token
            word = sip_hash(signer.k0, signer.k1, signed)
            memcpy(p, &word, TAG_BYTES)
            signer.n_signed += 1
            return parameter_of(token, p + TAG_BYTES - token)
        except Exception:                                     # an answer without a token is better than none
            return None

    cdef uint8_t* _tell(self, uint8_t* p, const uint8_t* end, list outputs, int64_t row):
        """What was predicted for one row, written at p."""
        cdef float confidence = NAN
        cdef int64_t label = 0
        cdef bint has_label = False
        cdef double best, total, value
        cdef int64_t n, i
        cdef const uint8_t* at
        cdef int size, typenum
        cdef cnp.ndarray scores, classes                      # Batch._check has seen that they are
        if self.score_output >= 0:
            scores = <cnp.ndarray>outputs[self.score_output]
            n = row_length(scores)
            typenum = cnp.PyArray_TYPE(scores)
            size = cnp.PyArray_ITEMSIZE(scores)
            at = <const uint8_t*>cnp.PyArray_DATA(scores) + row * n * size
            if 0 < n <= MAX_CLASSES:
                best = value_at(at, typenum)
                if self.is_value:
                    confidence = <float>best
                    p[0] = TOLD_VALUE
                    memcpy(p + 1, &confidence, 4)
                    return p + 5
                if n == 1:
                    has_label = best == best
                    label = best >= self.threshold
                    if 0.0 <= best <= 1.0:
                        confidence = <float>(best if label else 1.0 - best)
                else:
                    total = best
                    for i in range(1, n):
                        value = (<const float*>at)[i] if typenum == cnp.NPY_FLOAT32 else value_at(at + i * size, typenum)
                        total += value
                        if value > best:
                            best, label = value, i
                    has_label = total == total                # a NaN among them is no prediction
                    if fabs(total - 1.0) <= SUM_SLACK and 0.0 <= best <= 1.0:
                        confidence = <float>best
        if self.class_output >= 0:
            classes = <cnp.ndarray>outputs[self.class_output]
            n = row_length(classes)
            typenum = cnp.PyArray_TYPE(classes)
            if typenum == cnp.NPY_OBJECT:
                text = <object>(<PyObject**>cnp.PyArray_DATA(classes))[row * n] if n else ""
                raw = (<str>text).encode() if isinstance(text, str) else text
                if n and isinstance(raw, bytes) and len(<bytes>raw) <= MAX_TEXT_BYTES:
                    p[0], p[1] = TOLD_TEXT, <uint8_t>len(<bytes>raw)
                    memcpy(p + 2, PyBytes_AS_STRING(raw), p[1])
                    memcpy(p + 2 + p[1], &confidence, 4)
                    return p + 6 + p[1]
                n = 0
            has_label = n > 0
            if n > 0:
                label = whole_at(<const uint8_t*>cnp.PyArray_DATA(classes) + row * n * cnp.PyArray_ITEMSIZE(classes), typenum)
        if not has_label:
            p[0] = TOLD_NOTHING
            return p + 1
        p[0] = TOLD_CLASS
        p = write_varint(p + 1, <uint64_t>label << 1 ^ <uint64_t>(label >> 63))
        memcpy(p, &confidence, 4)
        return p + 4


cdef int index_of(Signature signature, str name) except -2:
    cdef int index
    if name is None:
        return -1
    wanted = name.encode()
    for index in range(signature.n_outputs):
        if signature.outputs[index].name.ptr[:signature.outputs[index].name.len] == wanted:
            return index
    raise ValueError(f"output of {signature.describe()}: got {name!r}, expected {signature.output_names()}")


cdef inline int64_t row_length(cnp.ndarray array) noexcept:
    cdef int64_t n = cnp.PyArray_NDIM(array) and cnp.PyArray_DIM(array, 0)
    return cnp.PyArray_SIZE(array) // n if n > 0 else cnp.PyArray_SIZE(array)


cdef double half(uint16_t bits) noexcept:
    """float16: no library call that would set flags."""
    cdef int exponent = (bits >> 10) & 0x1F
    cdef double value = bits & 0x3FF
    if exponent == 31:
        return NAN if value else (-1e308 * 10 if bits >> 15 else 1e308 * 10)
    value = value / 16777216.0 if exponent == 0 else (value + 1024.0) / 1024.0 * (
        <double>(<int64_t>1 << exponent) / 32768.0)
    return -value if bits >> 15 else value


cdef double value_at(const uint8_t* at, int typenum) noexcept:
    if typenum == cnp.NPY_FLOAT32:
        return (<const float*>at)[0]
    if typenum == cnp.NPY_FLOAT64:
        return (<const double*>at)[0]
    if typenum == cnp.NPY_FLOAT16:
        return half((<const uint16_t*>at)[0])
    return <double>whole_at(at, typenum)


cdef int64_t whole_at(const uint8_t* at, int typenum) noexcept:
    if typenum == cnp.NPY_INT64 or typenum == cnp.NPY_LONGLONG:          # two names of one thing: ONNX Runtime has the other one
        return (<const int64_t*>at)[0]
    if typenum == cnp.NPY_INT32:
        return (<const int32_t*>at)[0]
    if typenum == cnp.NPY_UINT8 or typenum == cnp.NPY_BOOL:
        return at[0]
    if typenum == cnp.NPY_INT16:
        return (<const int16_t*>at)[0]
    if typenum == cnp.NPY_INT8:
        return (<const int8_t*>at)[0]
    if typenum == cnp.NPY_UINT16:
        return (<const uint16_t*>at)[0]
    if typenum == cnp.NPY_UINT32:
        return (<const uint32_t*>at)[0]
    if typenum == cnp.NPY_UINT64 or typenum == cnp.NPY_ULONGLONG:
        return <int64_t>(<const uint64_t*>at)[0]
    return 0


cdef bytes parameter_of(const uint8_t* token, size_t n):
    """The entry of ModelInferResponse.parameters, its tag included, with the token in base64url."""
    cdef size_t n_text = (n * 4 + 2) // 3
    cdef size_t n_choice = 1 + varint_len(n_text) + n_text                   # InferParameter.string_param
    cdef size_t n_entry = PyBytes_GET_SIZE(NAME_FIELD) + 1 + varint_len(n_choice) + n_choice
    cdef bytes entry = PyBytes_FromStringAndSize(NULL, 1 + varint_len(n_entry) + n_entry)
    cdef uint8_t* p = <uint8_t*>PyBytes_AS_STRING(entry)
    cdef uint32_t word
    cdef size_t i
    p[0] = 4 << 3 | 2
    p = write_varint(p + 1, n_entry)
    memcpy(p, PyBytes_AS_STRING(NAME_FIELD), PyBytes_GET_SIZE(NAME_FIELD))
    p += PyBytes_GET_SIZE(NAME_FIELD)
    p[0] = 2 << 3 | 2
    p = write_varint(p + 1, n_choice)
    p[0] = 3 << 3 | 2
    p = write_varint(p + 1, n_text)
    for i in range(0, n - n % 3, 3):
        word = <uint32_t>token[i] << 16 | <uint32_t>token[i + 1] << 8 | token[i + 2]
        p[0], p[1] = ALPHABET[word >> 18], ALPHABET[word >> 12 & 63]
        p[2], p[3] = ALPHABET[word >> 6 & 63], ALPHABET[word & 63]
        p += 4
    if n % 3:
        word = <uint32_t>token[n - n % 3] << 16 | (<uint32_t>token[n - 1] << 8 if n % 3 == 2 else 0)
        p[0], p[1] = ALPHABET[word >> 18], ALPHABET[word >> 12 & 63]
        if n % 3 == 2:
            p[2] = ALPHABET[word >> 6 & 63]
    return entry


# --- reading ---------------------------------------------------------------------------------------------------------------------

cdef object MALFORMED = "is no token of a gateway: expected the answer's parameter gateway_request as it came"


cdef str take_text(Cursor* c, size_t n):
    if n > <size_t>(c.end - c.at):
        raise TokenError("malformed", MALFORMED)
    c.at += n
    return (c.at - n)[:n].decode("utf-8", "replace")        # a name of 255 bytes may be cut in a letter


cdef str take_name(Cursor* c):
    if c.at == c.end:
        raise TokenError("malformed", MALFORMED)
    c.at += 1
    return take_text(c, (c.at - 1)[0])


cdef uint64_t take_varint(Cursor* c) except? 0:
    cdef uint64_t value
    if read_varint(c, &value) < 0:
        raise TokenError("malformed", MALFORMED)
    return value


cdef double take_float(Cursor* c) except? -1:
    cdef float value
    if c.end - c.at < 4:
        raise TokenError("malformed", MALFORMED)
    memcpy(&value, c.at, 4)
    c.at += 4
    return value


def read(bytes key not None, token):
    """What a token says, once its signature is checked: (id, arrived_s, unit, model, version, arm, stage, weight, answered, n_rows,
    predictions), each prediction None, or (class: int | str | None, score). TokenError."""
    cdef bytes raw, text
    cdef Span span
    cdef Cursor c
    cdef uint64_t word = 0, tag
    cdef uint64_t k0, k1, zigzag
    cdef int kind, flags, at
    try:
        text = token.encode("ascii") if isinstance(token, str) else bytes(token)
        # altchars alone would let other letters pass unseen
        if len(text) > MAX_TOKEN_BYTES * 2 or b"+" in text or b"/" in text:
            raise ValueError
        raw = base64.b64decode(text + b"==="[:(4 - len(text) % 4) % 4], altchars=b"-_", validate=True)
    except ValueError:
        raise TokenError("malformed", MALFORMED) from None
    if len(raw) < 16 + TAG_BYTES + 8 or raw[0] & 0x0F != FORMAT:
        raise TokenError("malformed", MALFORMED)
    k0, k1, key_id = halves(key)
    if raw[1] != key_id:
        raise TokenError("unknown", "was signed by another gateway, or with a key that is no longer used")
    span.ptr, span.len = <const uint8_t*>PyBytes_AS_STRING(raw), len(raw) - TAG_BYTES
    memcpy(&tag, span.ptr + span.len, TAG_BYTES)
    if sip_hash(k0, k1, span) != tag:
        raise TokenError("forged", "does not carry the gateway's signature: it was changed or made up")
    flags, at = raw[0], 16
    memcpy(&word, span.ptr + 10, 6)
    unit = None
    if flags & HAS_UNIT:
        unit, at = raw[16:24], 24
    c = cursor_over(span)
    c.at += at
    model, version, arm = take_name(&c), take_name(&c), take_name(&c)
    stage, weight = take_varint(&c), take_varint(&c)
    answered = take_name(&c) or version
    n_rows = take_varint(&c)
    predictions = []
    if c.at == c.end:
        raise TokenError("malformed", MALFORMED)
    c.at += 1
    for _ in range((c.at - 1)[0]):
        if c.at == c.end:
            raise TokenError("malformed", MALFORMED)
        kind = c.at[0]
        c.at += 1
        if kind == TOLD_NOTHING:
            predictions.append(None)
        elif kind == TOLD_CLASS:
            zigzag = take_varint(&c)
            predictions.append((<int64_t>(zigzag >> 1) ^ -<int64_t>(zigzag & 1), take_float(&c)))
        elif kind == TOLD_VALUE:
            predictions.append((None, take_float(&c)))
        elif kind == TOLD_TEXT:
            name = take_name(&c)
            predictions.append((name, take_float(&c)))
        else:
            raise TokenError("malformed", MALFORMED)
    return raw[2:16], word / 1000.0, unit, model, version, arm, stage, weight, answered, n_rows, predictions
