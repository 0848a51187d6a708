"""Our messages against Triton's own, which its client registers in protobuf's default pool of this very process."""

from __future__ import annotations

import google.protobuf.descriptor_pool
import pytest
from google.protobuf.descriptor import Descriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2 as triton_config
from tritonclient.grpc import service_pb2 as triton

from gateway import pb

INFERENCE = pb.pool.FindFileByName("inference.proto")
MODEL_CONFIG = pb.pool.FindFileByName("model_config.proto")


def fields(message: Descriptor) -> dict[str, tuple[object, ...]]:
    """What of a message is on the wire or in the callers' code, nested messages included."""
    found: dict[str, tuple[object, ...]] = {}
    for field in message.fields:
        kind = field.message_type.full_name if field.message_type else field.enum_type and field.enum_type.full_name
        oneof = field.containing_oneof and field.containing_oneof.name
        found[field.full_name] = (field.number, field.type, field.is_repeated, kind, oneof)
    for nested in message.nested_types:
        found |= fields(nested)
    return found


def enum_values(message: Descriptor) -> dict[str, list[tuple[str, int]]]:
    return {enum.full_name: [(value.name, value.number) for value in enum.values] for enum in message.enum_types}


@pytest.mark.parametrize("name", sorted(INFERENCE.message_types_by_name))
def test_each_inference_message_has_the_fields_of_tritons(name: str) -> None:
    assert fields(INFERENCE.message_types_by_name[name]) == fields(triton.DESCRIPTOR.message_types_by_name[name])


@pytest.mark.parametrize("name", sorted(MODEL_CONFIG.message_types_by_name))
def test_each_message_of_a_configuration_has_fields_of_tritons_and_no_others(name: str) -> None:
    ours, theirs = MODEL_CONFIG.message_types_by_name[name], triton_config.DESCRIPTOR.message_types_by_name[name]
    assert fields(ours).items() <= fields(theirs).items()
    assert enum_values(ours) == enum_values(theirs)


def test_data_types_have_the_numbers_of_tritons() -> None:
    ours, theirs = (file.enum_types_by_name["DataType"] for file in (MODEL_CONFIG, triton_config.DESCRIPTOR))
    assert [(v.name, v.number) for v in ours.values] == [(v.name, v.number) for v in theirs.values]


def test_each_inference_rpc_takes_and_gives_what_tritons_does() -> None:
    ours = INFERENCE.services_by_name["GRPCInferenceService"]
    theirs = triton.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    for method in ours.methods:
        other = theirs.methods_by_name[method.name]
        assert method.full_name == other.full_name
        assert (method.input_type.full_name, method.client_streaming) == (
            other.input_type.full_name,
            other.client_streaming,
        )
        assert (method.output_type.full_name, method.server_streaming) == (
            other.output_type.full_name,
            other.server_streaming,
        )


@pytest.mark.parametrize("name", ["HealthCheckRequest", "HealthCheckResponse"])
def test_health_has_the_fields_of_the_standard_protocol(name: str) -> None:
    ours, theirs = getattr(pb.health, name).DESCRIPTOR, getattr(health_pb2, name).DESCRIPTOR
    assert fields(ours) == fields(theirs)
    assert enum_values(ours) == enum_values(theirs)


@pytest.mark.parametrize("name", sorted(reflection_pb2.DESCRIPTOR.message_types_by_name))
def test_both_reflection_packages_have_the_fields_of_the_standard_protocol(name: str) -> None:
    expected = fields(getattr(reflection_pb2, name).DESCRIPTOR)
    assert fields(getattr(pb.reflection_alpha, name).DESCRIPTOR) == expected
    renamed = str(fields(getattr(pb.reflection, name).DESCRIPTOR))
    assert renamed.replace("grpc.reflection.v1.", "grpc.reflection.v1alpha.") == str(expected)


def test_our_symbols_and_tritons_live_side_by_side() -> None:
    default = google.protobuf.descriptor_pool.Default()
    assert default.FindMessageTypeByName("inference.ModelInferRequest") is triton.ModelInferRequest.DESCRIPTOR
    assert pb.pool.FindMessageTypeByName("inference.ModelInferRequest") is pb.inference.ModelInferRequest.DESCRIPTOR
    assert pb.inference.ModelInferRequest is not triton.ModelInferRequest


def test_every_file_is_kept_for_reflection_under_its_name() -> None:
    assert set(pb.file_descriptor_protos) == {
        "feedback.proto",
        "health.proto",
        "inference.proto",
        "model_config.proto",
        "reflection.proto",
        "reflection_alpha.proto",
        "shared_memory.proto",
    }


names = st.text(max_size=8)
int64s = st.integers(-(2**63), 2**63 - 1)
uint64s = st.integers(0, 2**64 - 1)
parameter = st.one_of(
    st.builds(dict),  # none of the choices
    st.fixed_dictionaries({"bool_param": st.booleans()}),
    st.fixed_dictionaries({"int64_param": int64s}),
    st.fixed_dictionaries({"string_param": names}),
    st.fixed_dictionaries({"double_param": st.floats(allow_nan=False)}),
    st.fixed_dictionaries({"uint64_param": uint64s}),
)
parameters = st.dictionaries(names, parameter, max_size=3)
contents = st.fixed_dictionaries(
    {},
    optional={
        "bool_contents": st.lists(st.booleans(), max_size=4),
        "int_contents": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4),
        "int64_contents": st.lists(int64s, max_size=4),
        "uint_contents": st.lists(st.integers(0, 2**32 - 1), max_size=4),
        "uint64_contents": st.lists(uint64s, max_size=4),
        "fp32_contents": st.lists(st.floats(allow_nan=False, width=32), max_size=4),
        "fp64_contents": st.lists(st.floats(allow_nan=False), max_size=4),
        "bytes_contents": st.lists(st.binary(max_size=4), max_size=4),
    },
)
tensor = st.fixed_dictionaries(
    {},
    optional={
        "name": names,
        "datatype": names,
        "shape": st.lists(int64s, max_size=3),
        "parameters": parameters,
        "contents": contents,
    },
)
head = {"model_name": names, "model_version": names, "id": names, "parameters": parameters}
raw = st.lists(st.binary(max_size=8), max_size=3)
request = st.fixed_dictionaries(
    {},
    optional=head
    | {
        "inputs": st.lists(tensor, max_size=3),
        "outputs": st.lists(st.fixed_dictionaries({}, optional={"name": names, "parameters": parameters}), max_size=3),
        "raw_input_contents": raw,
    },
)
response = st.fixed_dictionaries(
    {}, optional=head | {"outputs": st.lists(tensor, max_size=3), "raw_output_contents": raw}
)
examples = st.one_of(
    st.tuples(st.just("ModelInferRequest"), request),
    st.tuples(st.just("ModelInferResponse"), response),
    st.tuples(
        st.just("ModelStreamInferResponse"), st.fixed_dictionaries({"error_message": names, "infer_response": response})
    ),
)


@given(examples)
def test_what_one_side_writes_the_other_reads_and_writes_again(example: tuple[str, dict[str, object]]) -> None:
    name, values = example
    ours, theirs = getattr(pb.inference, name)(**values), getattr(triton, name)(**values)
    wire = theirs.SerializeToString(deterministic=True)
    assert ours.SerializeToString(deterministic=True) == wire
    assert type(ours).FromString(wire) == ours
    assert type(theirs).FromString(wire) == theirs
