"""gRPC server reflection, v1 and v1alpha: tools such as grpcurl learn the services from the running server.

Answers are made from the descriptors that pb was built from; the two versions differ in their package name only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)

from gateway import pb
from gateway.errors import Code, GatewayError
from gateway.serving.stream import Stream, parse
from gateway.serving.wording import quoted


@dataclass(frozen=True)
class Dialect:
    """One version of the protocol: its path and its message classes."""

    path: str
    messages: Any

    @property
    def request(self) -> Any:
        return self.messages.ServerReflectionRequest

    @property
    def response(self) -> Any:
        return self.messages.ServerReflectionResponse


V1 = Dialect("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", pb.reflection)
V1ALPHA = Dialect("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", pb.reflection_alpha)


class Descriptors:
    """Index over serialized FileDescriptorProtos (file name -> bytes): which file declares a symbol or an extension."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.services: list[str] = []
        self._files = files
        self._imports: dict[str, list[str]] = {}
        self._file_of: dict[str, str] = {}
        self._types: set[str] = set()
        self._extensions: dict[tuple[str, int], str] = {}  # (extended message, field number) -> file
        for name, serialized in files.items():
            self._add(name, FileDescriptorProto.FromString(serialized))
        self.services.sort()

    def with_imports(self, name: str) -> list[bytes]:
        """The file, then all it needs, each once: a client can build its pool from one answer. KeyError if unknown."""
        order, waiting = [name], [name]
        while waiting:
            for needed in self._imports[waiting.pop()]:
                if needed not in order and needed in self._files:
                    order.append(needed)
                    waiting.append(needed)
        return [self._files[each] for each in order]

    def declaring(self, symbol: str) -> list[bytes]:
        """The file of a service, method, message, enum, enum value, field or extension. KeyError if unknown."""
        return self.with_imports(self._file_of[symbol])

    def extending(self, message: str, number: int) -> list[bytes]:
        """KeyError if no file extends `message` by that field number."""
        return self.with_imports(self._extensions[message, number])

    def extension_numbers(self, message: str) -> list[int]:
        """Sorted, often empty. KeyError if there is no such message."""
        if message not in self._types:
            raise KeyError(message)
        return sorted(number for extended, number in self._extensions if extended == message)

    def _add(self, name: str, file: FileDescriptorProto) -> None:
        self._imports[name] = list(file.dependency)
        scope = f"{file.package}." if file.package else ""
        self._extend(name, file.extension)
        symbols = [
            *_fields(scope, file.extension),
            *_enums(scope, file.enum_type),
            *(symbol for message in file.message_type for symbol in self._message(name, scope, message)),
        ]
        for service in file.service:
            full_name = scope + service.name
            self.services.append(full_name)
            symbols += [full_name, *(f"{full_name}.{method.name}" for method in service.method)]
        self._file_of |= dict.fromkeys(symbols, name)

    def _message(self, file: str, scope: str, message: DescriptorProto) -> Iterator[str]:
        full_name = scope + message.name
        inner = f"{full_name}."
        self._types.add(full_name)
        self._extend(file, message.extension)
        yield full_name
        yield from _fields(inner, message.field)
        yield from _fields(inner, message.extension)
        yield from _enums(inner, message.enum_type)
        yield from (inner + oneof.name for oneof in message.oneof_decl)
        for nested in message.nested_type:
            yield from self._message(file, inner, nested)

    def _extend(self, file: str, extensions: Iterable[FieldDescriptorProto]) -> None:
        for field in extensions:
            self._extensions[field.extendee.lstrip("."), field.number] = file


class Reflection:
    """The service in one dialect."""

    def __init__(self, dialect: Dialect, descriptors: Descriptors | None = None) -> None:
        self._dialect = dialect
        self._descriptors = descriptors or _ours()

    def open(self, stream: Stream) -> ReflectionCall:
        return ReflectionCall(self, self._dialect, stream)

    def answer(self, request: Any) -> Any:
        """One response for one request; what is not found is an answer in the stream, not its end."""
        response = self._dialect.response(valid_host=request.host, original_request=request)
        kind = request.WhichOneof("message_request")
        descriptors = self._descriptors
        try:
            if kind == "list_services":
                for service in descriptors.services:
                    response.list_services_response.service.add(name=service)
            elif kind == "file_by_filename":
                self._put(response, descriptors.with_imports(request.file_by_filename))
            elif kind == "file_containing_symbol":
                self._put(response, descriptors.declaring(request.file_containing_symbol))
            elif kind == "file_containing_extension":
                wanted = request.file_containing_extension
                self._put(response, descriptors.extending(wanted.containing_type, wanted.extension_number))
            elif kind == "all_extension_numbers_of_type":
                message = request.all_extension_numbers_of_type
                numbers = descriptors.extension_numbers(message)
                response.all_extension_numbers_response.base_type_name = message
                response.all_extension_numbers_response.extension_number.extend(numbers)
            else:
                self._refuse(response, Code.INVALID_ARGUMENT, "message_request: not set; set one of its fields")
        except KeyError:
            self._refuse(response, Code.NOT_FOUND, f"{kind}: {_wanted(kind, request)} not found")
        return response

    @staticmethod
    def _put(response: Any, files: list[bytes]) -> None:
        response.file_descriptor_response.file_descriptor_proto.extend(files)

    @staticmethod
    def _refuse(response: Any, code: Code, text: str) -> None:
        response.error_response.error_code = code
        response.error_response.error_message = text


class ReflectionCall:
    """One ServerReflectionInfo call: an answer for each request, in order."""

    def __init__(self, reflection: Reflection, dialect: Dialect, stream: Stream) -> None:
        self._reflection = reflection
        self._dialect = dialect
        self._stream = stream
        self._done = False

    def on_message(self, message: bytes) -> None:
        if self._done:
            return
        try:
            request = parse(self._dialect.request, message)
        except GatewayError as error:
            self._done = True
            self._stream.finish(error.code, str(error))
            return
        self._stream.send(self._reflection.answer(request).SerializeToString())

    def on_half_close(self) -> None:
        if not self._done:
            self._done = True
            self._stream.finish()

    def on_cancel(self) -> None:
        self._done = True


@cache
def _ours() -> Descriptors:
    return Descriptors(pb.file_descriptor_protos)


def _fields(scope: str, fields: Iterable[FieldDescriptorProto]) -> Iterator[str]:
    return (scope + field.name for field in fields)


def _enums(scope: str, enums: Iterable[EnumDescriptorProto]) -> Iterator[str]:
    for enum in enums:
        yield scope + enum.name
        yield from (scope + value.name for value in enum.value)  # protobuf's scoping: values are siblings of their enum


def _wanted(kind: str, request: Any) -> str:
    if kind == "file_containing_extension":
        wanted = request.file_containing_extension
        return f"extension {wanted.extension_number} of {quoted(wanted.containing_type)}"
    return quoted(getattr(request, kind))
