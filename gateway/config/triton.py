"""model.yaml's `triton:` section, and <version>/triton.yaml: which servers run a version, and what they call it there.

A version's own file is laid over the model's section, field by field. Secrets need not stand in either: a value of
`metadata` may be read from the environment or from a file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, field_validator, model_validator

from gateway.config.files import load_yaml
from gateway.config.units import DurationUs, SizeBytes, expected, format_duration, format_size
from gateway.errors import LoadError

FILE_NAME = "triton.yaml"
PORT = 8001
"""Triton's own for gRPC."""
MAX_ENDPOINTS = 256
MAX_IN_FLIGHT = 1024
LEAST_SHARED_BYTES = 64 << 10
"""The smallest region."""

_HOST = r"(?:\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+)"
_ADDRESS = re.compile(rf"(?P<host>{_HOST})(?::(?P<port>[0-9]{{1,5}}))?", re.ASCII)
_HEADER = re.compile(r"[a-z0-9._-]+", re.ASCII)


def split_address(address: str) -> tuple[str, int]:
    """Host and port. ValueError: it is neither a name nor an address with an optional port."""
    match = _ADDRESS.fullmatch(address)
    port = int(match["port"] or PORT) if match else 0
    if not match or not 0 < port < 65536:
        raise ValueError(address)
    return match["host"].strip("[]"), port


def join_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _address(value: Any) -> str:
    try:
        return join_address(*split_address(value))
    except (ValueError, TypeError):
        raise expected("HOST:PORT such as triton-0:8001 or 10.0.0.7 (port 8001), without a scheme") from None


Duration = Annotated[DurationUs, PlainSerializer(format_duration, return_type=str, when_used="json")]
"""Read back as it was written: a bare number would be seconds."""

Size = Annotated[SizeBytes, PlainSerializer(format_size, return_type=str, when_used="json")]

Address = Annotated[str, BeforeValidator(_address)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class EndpointEntry(_Part):
    address: Address
    weight: Annotated[float, Field(gt=0, le=1000, strict=False)] = 1.0
    """Its share, against the others'."""

    @model_validator(mode="before")
    @classmethod
    def _may_be_short(cls, data: Any) -> Any:
        return {"address": data} if isinstance(data, str) else data


class Secret(_Part):
    """A value that stands elsewhere."""

    env: str | None = None
    file: Annotated[Path, Field(strict=False)] | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Secret:
        if (self.env is None) == (self.file is None):
            raise ValueError("expected either env: NAME or file: PATH")
        return self

    def read(self) -> str:
        """LoadError: it is not there."""
        if self.env is not None:
            value = os.environ.get(self.env)
            if value is None:
                raise LoadError(f"triton.metadata: the environment has no variable {self.env}")
            return value
        assert self.file is not None
        try:
            return self.file.read_text().strip()
        except OSError as error:
            raise LoadError(f"triton.metadata: {self.file}: cannot be read: {error.strerror}") from None


class Tls(_Part):
    """`tls: true` is all of it by default: the system's roots, and no certificate of our own."""

    ca: Annotated[Path, Field(strict=False)] | None = None
    cert: Annotated[Path, Field(strict=False)] | None = None
    key: Annotated[Path, Field(strict=False)] | None = None
    server_name: str | None = None
    """What the servers' certificates are made out to, if not to the names that they are reached by."""

    @model_validator(mode="after")
    def _agree(self) -> Tls:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key go together, expected both or neither")
        return self


class Triton(_Part):
    endpoints: Annotated[tuple[EndpointEntry, ...], Field(strict=False, max_length=MAX_ENDPOINTS)] = ()
    """Servers by HOST:PORT of their gRPC, or {address: HOST:PORT, weight: 2}."""

    dns: Address | None = None
    """Instead of endpoints: a name with one address for each server, looked up again and again."""

    resolve_every: Duration = 10_000_000

    model: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    """Its name there; by default as here."""

    version: Annotated[str, Field(pattern=r"^([1-9][0-9]{0,17})?$")] | None = None
    """Its number there; by default as here. "" leaves the choice to the server's version policy."""

    tls: Tls | None = None
    metadata: dict[str, str | Secret] = {}
    """Sent with each request, such as {authorization: {env: TRITON_TOKEN}}."""

    timeout: Duration = 30_000_000
    """Of one attempt; the caller's deadline may be nearer."""

    connect_timeout: Duration = 2_000_000
    """Of the questions at load: a server that does not answer them in time is down."""

    in_flight: Annotated[int, Field(ge=1, le=MAX_IN_FLIGHT)] | Literal["auto"] = "auto"
    """Batches at once on each server, of each worker; `auto`: twice the instances it has of the model."""

    hedge: bool = False
    """Ask a second server when the first is slower than usual (the 95th percentile), and take who answers first."""

    shared_memory: Literal["auto", "off", "on"] = "auto"
    """How tensors get to servers on this machine. `auto`: large batches in memory that both see, where a server is
    found to see it. `on`: all batches that can, and a server that sees none of it is not asked.
    """

    shared_memory_limit: Size = 256 << 20
    """Of that memory, in each worker; beyond it tensors are sent."""

    warm_up: bool = True
    """Send made-up rows at load, to learn what a batch takes."""

    @model_validator(mode="before")
    @classmethod
    def _needs_mapping(cls, data: Any) -> Any:
        return {} if data is None else data

    @field_validator("tls", mode="before")
    @classmethod
    def _tls_switch(cls, value: Any) -> Any:
        return {} if value is True else None if value is False else value

    @field_validator("shared_memory", mode="before")
    @classmethod
    def _yaml_switch(cls, value: Any) -> Any:
        return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value

    @field_validator("shared_memory_limit")
    @classmethod
    def _holds_something(cls, value: int) -> int:
        if value < LEAST_SHARED_BYTES:
            raise expected(f"{format_size(LEAST_SHARED_BYTES)} or more (shared_memory: off does without)")
        return value

    @field_validator("metadata")
    @classmethod
    def _header_names(cls, value: Mapping[str, str | Secret]) -> Mapping[str, str | Secret]:
        for name, text in value.items():
            if not _HEADER.fullmatch(name) or name.startswith("grpc-") or name.endswith("-bin"):
                raise expected("names of gRPC metadata: lower case, no grpc- before and no -bin behind")
            if isinstance(text, str) and not (text.isascii() and text.isprintable()):
                raise expected(f"printable ASCII as the value of {name}")
        return value

    @field_validator("timeout", "connect_timeout", "resolve_every")
    @classmethod
    def _not_zero(cls, value: int) -> int:
        if value == 0:
            raise expected("more than 0")
        return value

    @model_validator(mode="after")
    def _agree(self) -> Triton:
        if self.endpoints and self.dns:
            raise ValueError("endpoints and dns are both given, expected one of them")
        addresses = [each.address for each in self.endpoints]
        if len(set(addresses)) < len(addresses):
            twice = next(address for address in addresses if addresses.count(address) > 1)
            raise ValueError(f"endpoints has {twice} twice, expected each once (weight says how much it gets)")
        return self

    @property
    def attempt_s(self) -> float:
        return self.timeout / 1e6

    @property
    def connect_s(self) -> float:
        return self.connect_timeout / 1e6

    def headers(self) -> tuple[tuple[str, str], ...]:
        """The metadata with its secrets. LoadError: one of them is not there."""
        return tuple((name, value if isinstance(value, str) else value.read()) for name, value in self.metadata.items())


def settings_of(folder: Path, common: Triton) -> Triton:
    """Of the version in `folder`: its triton.yaml over what the model's versions have in common. ConfigError names
    file and field.
    """
    file = folder / FILE_NAME
    if not file.is_file():
        return common
    own = load_yaml(file, Triton)
    given = {name: getattr(own, name) for name in own.model_fields_set}
    if "endpoints" in given or "dns" in given:
        given = {"endpoints": own.endpoints, "dns": own.dns, **given}
    return common.model_copy(update=given)
