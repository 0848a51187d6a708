"""A client made of frames: it says exactly the bytes that a test wants said, and reads the answer strictly.

`Peer` encodes with its own HPACK table and decodes what comes back; whatever a gRPC client would call a protocol
error of the server (a frame after the end of its stream, a DATA frame over the window, headers in the wrong order) is
an AssertionError of `Peer.receive`.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

import hpack

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 1
END_HEADERS, PADDED, HAS_PRIORITY = 4, 8, 32

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = (
    range(1, 7)
)

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 5, 6, 7, 8, 9, 11

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DEFAULT_WINDOW, LARGEST_WINDOW, DEFAULT_FRAME_BYTES = 65_535, 2**31 - 1, 16_384

SERVICE = "/inference.GRPCInferenceService/"
INFER, STREAM_INFER = SERVICE + "ModelInfer", SERVICE + "ModelStreamInfer"

Fields = Sequence[tuple[str | bytes, str | bytes]]

# --- bytes ----------------------------------------


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"", length: int | None = None) -> bytes:
    """Any frame; `length` to lie about the payload."""
    size = len(payload) if length is None else length
    return size.to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def settings(*entries: tuple[int, int], ack: bool = False) -> bytes:
    body = b"".join(number.to_bytes(2) + value.to_bytes(4) for number, value in entries)
    return frame(SETTINGS, ACK if ack else 0, 0, body)


def ping(payload: bytes = bytes(8), ack: bool = False) -> bytes:
    return frame(PING, ACK if ack else 0, 0, payload)


def window_update(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, increment.to_bytes(4))


def rst_stream(stream: int, code: int = CANCEL) -> bytes:
    return frame(RST_STREAM, 0, stream, code.to_bytes(4))


def goaway(last_stream: int = 0, code: int = NO_ERROR) -> bytes:
    return frame(GOAWAY, 0, 0, last_stream.to_bytes(4) + code.to_bytes(4))


def priority(stream: int, on: int = 0, weight: int = 15) -> bytes:
    return frame(PRIORITY, 0, stream, on.to_bytes(4) + bytes((weight,)))


def data(stream: int, payload: bytes = b"", end: bool = False, padding: int | None = None) -> bytes:
    """One DATA frame. `padding` counts the zeros; None: not padded."""
    flags = END_STREAM if end else 0
    if padding is not None:
        flags |= PADDED
        payload = bytes((padding,)) + payload + bytes(padding)
    return frame(DATA, flags, stream, payload)


def grpc_message(message: bytes, flag: int = 0, length: int | None = None) -> bytes:
    """gRPC's length-prefixed message; `length` to lie about it."""
    return bytes((flag,)) + (len(message) if length is None else length).to_bytes(4) + message


def compressed(message: bytes, encoding: str) -> bytes:
    packed = gzip.compress(message, mtime=0) if encoding == "gzip" else zlib.compress(message)
    return grpc_message(packed, flag=1)


# --- what came back ----------------------------------------


@dataclass
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes
    fields: list[tuple[str, str]] | None = None  # of HEADERS with their CONTINUATIONs

    @property
    def code(self) -> int:
        """Of RST_STREAM and GOAWAY."""
        return int.from_bytes(self.payload[:4] if self.kind == RST_STREAM else self.payload[4:8])

    @property
    def last_stream(self) -> int:
        return int.from_bytes(self.payload[:4])

    @property
    def increment(self) -> int:
        return int.from_bytes(self.payload[:4])


@dataclass
class Answer:
    """What came on one stream. `blocks` are its header blocks: one when trailers-only, else headers and trailers."""

    blocks: list[dict[str, str]] = field(default_factory=list)
    body: bytes = b""
    is_ended: bool = False  # END_STREAM
    reset: int | None = None
    order: str = ""  # one letter a frame: H, D, R

    @property
    def is_over(self) -> bool:
        return self.is_ended or self.reset is not None

    @property
    def http_status(self) -> str:
        return self.blocks[0][":status"]

    @property
    def status(self) -> int | None:
        """gRPC's code; None while there is none."""
        found = self.blocks[-1].get("grpc-status") if self.blocks else None
        return int(found) if found is not None else None

    @property
    def text(self) -> str:
        return unquote_to_bytes(self.blocks[-1].get("grpc-message", "")).decode()

    @property
    def is_trailers_only(self) -> bool:
        return self.is_ended and len(self.blocks) == 1 and self.order.replace("R", "") == "H" and not self.body

    @property
    def flagged(self) -> list[tuple[int, bytes]]:
        """Complete gRPC messages with their flags. Bytes left over are a fault once the stream is over."""
        found, at = [], 0
        while len(self.body) - at >= 5:
            size = int.from_bytes(self.body[at + 1 : at + 5])
            if len(self.body) - at - 5 < size:
                break
            found.append((self.body[at], self.body[at + 5 : at + 5 + size]))
            at += 5 + size
        assert at == len(self.body) or not self.is_ended, "the answer ends inside a message"
        return found

    @property
    def messages(self) -> list[bytes]:
        encoding = self.blocks[0].get("grpc-encoding", "identity") if self.blocks else "identity"
        inflate = {"gzip": gzip.decompress, "deflate": zlib.decompress}.get(encoding)
        found = []
        for flag, message in self.flagged:
            assert flag in (0, 1)
            if flag:
                assert inflate is not None, f"a compressed message under grpc-encoding {encoding}"
                message = inflate(message)
            found.append(message)
        return found


class Peer:
    """One client. Methods named after frames give bytes; `receive` takes the server's."""

    def __init__(self) -> None:
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.frames: list[Frame] = []
        self.answers: dict[int, Answer] = {}
        self.goaways: list[Frame] = []
        self.server_settings: dict[int, int] = {}
        self.max_frame_bytes = DEFAULT_FRAME_BYTES
        self.initial_window = DEFAULT_WINDOW
        self.windows: dict[int, int] = {0: DEFAULT_WINDOW}  # what the server may still send; 0 is the connection
        self.granted: dict[int, int] = {}  # what the server returned to us, by stream
        self.sent: dict[int, int] = {}  # by `part`, by stream
        self.stream_room = DEFAULT_WINDOW  # what a stream begins with
        self._rest = b""
        self._block: tuple[Frame, bytes] | None = None

    # --- saying

    def preface(self, *entries: tuple[int, int], wide: bool = True) -> bytes:
        """Connection preface. `wide`: windows that no answer can fill."""
        opening = b""
        if wide:
            entries = ((INITIAL_WINDOW_SIZE, LARGEST_WINDOW), *entries)
            opening = self.grant(0, LARGEST_WINDOW - DEFAULT_WINDOW)
        return PREFACE + self.change(*entries) + opening

    def change(self, *entries: tuple[int, int]) -> bytes:
        """SETTINGS, noted here as in force: the server applies them before it sends anything more."""
        for number, value in entries:
            if number == INITIAL_WINDOW_SIZE:
                for stream in self.windows:
                    if stream:
                        self.windows[stream] += value - self.initial_window
                self.initial_window = value
            elif number == MAX_FRAME_SIZE:
                self.max_frame_bytes = value
        return settings(*entries)

    def grant(self, stream: int, increment: int) -> bytes:
        self.windows[stream] = self.windows.get(stream, self.initial_window) + increment
        return window_update(stream, increment)

    def headers(
        self,
        stream: int,
        fields: Fields,
        end: bool = False,
        padding: int | None = None,
        pieces: int = 1,
        has_priority: bool = False,
    ) -> bytes:
        """A header block, in HEADERS and `pieces` - 1 CONTINUATIONs."""
        self.windows.setdefault(stream, self.initial_window)
        self.answers.setdefault(stream, Answer())
        block = self.encoder.encode([(name, value) for name, value in fields])
        size = max(1, -(-len(block) // pieces))
        parts = [block[at : at + size] for at in range(0, len(block), size)] or [b""]
        parts += [b""] * (pieces - len(parts))
        flags, first = END_STREAM if end else 0, parts[0]
        if has_priority:
            flags |= HAS_PRIORITY
            first = bytes(4) + b"\x0f" + first
        if padding is not None:
            flags |= PADDED
            first = bytes((padding,)) + first + bytes(padding)
        if len(parts) == 1:
            flags |= END_HEADERS
        said = frame(HEADERS, flags, stream, first)
        for at, part in enumerate(parts[1:], 2):
            said += frame(CONTINUATION, END_HEADERS if at == len(parts) else 0, stream, part)
        return said

    def open(
        self, stream: int, path: str = INFER, *more: tuple[str, str], end: bool = False, **wishes: object
    ) -> bytes:
        """A gRPC request's headers and `more`; wishes are `headers`'s."""
        return self.headers(stream, [*request_fields(path), *more], end, **wishes)  # type: ignore[arg-type]

    def call(self, stream: int, message: bytes, path: str = INFER, *more: tuple[str, str]) -> bytes:
        """A whole unary request, in DATA frames as large as they may be."""
        return self.open(stream, path, *more) + self.body(stream, grpc_message(message))

    def body(self, stream: int, stuff: bytes, end: bool = True, size: int = DEFAULT_FRAME_BYTES) -> bytes:
        """The request stream in DATA frames of `size`."""
        parts = [stuff[at : at + size] for at in range(0, len(stuff), size)] or [b""]
        return b"".join(data(stream, part, end and at == len(parts) - 1) for at, part in enumerate(parts))

    def room(self, stream: int) -> int:
        """What the server's windows let `part` send."""
        total = sum(self.sent.values())
        return min(
            DEFAULT_WINDOW + self.granted.get(0, 0) - total,
            self.stream_room + self.granted.get(stream, 0) - self.sent.get(stream, 0),
        )

    def part(self, stream: int, payload: bytes, end: bool = False) -> bytes:
        """A DATA frame that counts against the server's windows."""
        self.sent[stream] = self.sent.get(stream, 0) + len(payload)
        return data(stream, payload, end)

    # --- hearing

    def receive(self, got: bytes) -> list[Frame]:
        """Frames complete with these bytes, checked and sorted into `answers`."""
        self._rest += got
        heard = []
        for one in self._split():
            if one.kind in (HEADERS, CONTINUATION):
                whole = self._headers(one)
                if whole is None:
                    continue
                one = whole
            else:
                assert self._block is None, "a header block was interrupted"
            self.frames.append(one)
            heard.append(one)
            self._take(one)
        return heard

    def _split(self) -> Iterator[Frame]:
        while len(self._rest) >= 9 and len(self._rest) >= 9 + (size := int.from_bytes(self._rest[:3])):
            assert size <= self.max_frame_bytes, f"a frame of {size} bytes, agreed are {self.max_frame_bytes}"
            head, payload, self._rest = self._rest[:9], self._rest[9 : 9 + size], self._rest[9 + size :]
            yield Frame(head[3], head[4], int.from_bytes(head[5:9]), payload)

    def _headers(self, one: Frame) -> Frame | None:
        if one.kind == HEADERS:
            assert self._block is None
            assert not one.flags & (PADDED | HAS_PRIORITY)
            self._block = (one, one.payload)
        else:
            assert self._block is not None
            assert self._block[0].stream == one.stream
            self._block = (self._block[0], self._block[1] + one.payload)
        if not one.flags & END_HEADERS:
            return None
        (first, block), self._block = self._block, None
        first.fields = [(_text(name), _text(value)) for name, value in self.decoder.decode(block)]
        return first

    def _take(self, one: Frame) -> None:
        if one.kind in (HEADERS, DATA, RST_STREAM):
            assert one.stream in self.answers, f"a frame on stream {one.stream}, which was never opened"
            answer = self.answers[one.stream]
            assert answer.reset is None, f"a frame after RST_STREAM of stream {one.stream}"
            answer.order += {HEADERS: "H", DATA: "D", RST_STREAM: "R"}[one.kind]
        if one.kind == HEADERS:
            assert not answer.is_ended, "HEADERS after the end of the stream"
            assert one.fields is not None
            block = dict(one.fields)
            assert len(block) == len(one.fields), f"a field came twice: {one.fields}"
            assert (":status" in block) == (not answer.blocks), f"headers out of order: {one.fields}"
            assert len(answer.blocks) < 2
            assert not answer.blocks or one.flags & END_STREAM, "trailers without END_STREAM"
            assert not one.flags & END_STREAM or "grpc-status" in block, "the end without a grpc-status"
            answer.blocks.append(block)
        elif one.kind == DATA:
            assert not answer.is_ended, "DATA after the end of the stream"
            assert answer.blocks, "DATA before HEADERS"
            assert not one.flags & END_STREAM, "a gRPC answer ends with trailers, never with DATA"
            answer.body += one.payload
            for stream in (0, one.stream):
                self.windows[stream] -= len(one.payload)
                assert self.windows[stream] >= 0 or not one.payload, f"DATA over the window of stream {stream}"
        elif one.kind == RST_STREAM:
            answer.reset = one.code
        elif one.kind == GOAWAY:
            self.goaways.append(one)
        elif one.kind == WINDOW_UPDATE:
            assert one.increment > 0
            self.granted[one.stream] = self.granted.get(one.stream, 0) + one.increment
        elif one.kind == SETTINGS and not one.flags & ACK:
            for at in range(0, len(one.payload), 6):
                number = int.from_bytes(one.payload[at : at + 2])
                self.server_settings[number] = int.from_bytes(one.payload[at + 2 : at + 6])
        if one.kind in (HEADERS, DATA) and one.flags & END_STREAM:
            answer.is_ended = True

    def heard(self, *kinds: int) -> list[Frame]:
        return [one for one in self.frames if one.kind in kinds]


def request_fields(
    path: str = INFER, method: str = "POST", content_type: str | None = "application/grpc"
) -> list[tuple[str, str]]:
    fields = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "test"), ("te", "trailers")]
    return fields + ([("content-type", content_type)] if content_type is not None else [])


def pieces(stuff: bytes, cuts: Iterable[int]) -> Iterator[bytes]:
    """`stuff` cut at those offsets."""
    last = 0
    for cut in [*sorted(set(cuts)), len(stuff)]:
        if cut > last:
            yield stuff[last:cut]
            last = cut


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
