"""Raw tensor bytes, both ways, against what Triton's own client writes and reads."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from gateway.cli.tensors import DTYPES, decode, encode

RANDOM = np.random.default_rng(7)
NUMBERS = sorted(set(DTYPES) - {"BYTES", "BF16"})


@pytest.mark.parametrize("datatype", NUMBERS)
@pytest.mark.parametrize("shape", [(2, 3), (0, 4), (1,), ()])
def test_numbers_are_packed_little_endian_and_come_back(datatype: str, shape: tuple[int, ...]) -> None:
    array = (RANDOM.random(shape) * 100).astype(DTYPES[datatype])
    raw = encode(array, datatype)
    assert raw == array.tobytes()
    back = decode(raw, datatype, list(shape))
    assert back.dtype == array.dtype
    assert np.array_equal(back, array)


def test_a_view_with_gaps_is_packed() -> None:
    array = np.arange(12, dtype=np.int32).reshape(3, 4)[:, ::2]
    assert encode(array, "INT32") == np.ascontiguousarray(array).tobytes()


@pytest.mark.parametrize("values", [[b"", b"a", "Köln".encode()], [b"\x00\xff"], []])
def test_bytes_are_as_tritons_client_writes_and_reads_them(values: list[bytes]) -> None:
    array: Any = np.array(values, dtype=np.object_)
    raw = encode(array, "BYTES")
    theirs = serialize_byte_tensor(array)
    assert raw == (theirs.item() if theirs.size else b"")
    assert decode(raw, "BYTES", [len(values)]).tolist() == values
    assert list(deserialize_bytes_tensor(raw)) == values


def test_bfloat16_is_the_upper_half_of_a_float_rounded_to_nearest_even() -> None:
    array = RANDOM.standard_normal(1000).astype(np.float32) * np.float32(1e30)
    array[:5] = [0.0, -0.0, np.inf, -np.inf, 1 + 2**-8]
    assert encode(array, "BF16") == array.astype(ml_dtypes.bfloat16).tobytes()
    back = decode(encode(array, "BF16"), "BF16", [1000])
    assert np.array_equal(back, array.astype(ml_dtypes.bfloat16).astype(np.float32))
    assert np.isnan(decode(encode(np.array([np.nan], np.float32), "BF16"), "BF16", [1])).all()


@pytest.mark.parametrize(
    ("raw", "datatype", "shape"), [(b"123", "FP32", [1]), (b"\x05\0\0", "BYTES", [1]), (b"", "FP32", [1])]
)
def test_bytes_that_do_not_fill_the_shape_are_an_error(raw: bytes, datatype: str, shape: list[int]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode(raw, datatype, shape)


def test_a_string_that_ends_too_early_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"^element 1 needs 5 bytes"):
        decode(b"\x05\0\0\0abc", "BYTES", [1])
