"""The stations of a request's way, in order, and the functions by which a stack tells at which one it is.

A sample belongs to the innermost function on its stack that is named here; what is not named (malloc, nghttp2's inside)
belongs to whoever called it. Patterns are matched against the symbol; `object` against the file that it comes from.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

_NATIVE = r"__pyx_\w*gateway_6native_\w*?"


@dataclass(frozen=True, slots=True)
class Stage:
    """One row of the table."""

    name: str
    pattern: str
    object: str = ""

    def holds(self, symbol: str, file: str) -> bool:
        return bool(_found(self.pattern, symbol)) and (not self.object or self.object in file)


@cache
def _found(pattern: str, symbol: str) -> bool:
    return re.search(pattern, symbol) is not None


STAGES = (
    Stage("wait for sockets: epoll", r"^epoll_p?wait|^__libc_epoll|^uv__io_poll$"),
    Stage("read the socket", r"^(__)?(libc_)?read$|^recv"),
    Stage("event loop and its callbacks", r"^__pyx_\w*_6uvloop_|^uv_"),
    Stage("HTTP/2 in: frames, HPACK, rules (nghttp2)", _NATIVE + r"5http2_7Session_feed$|^nghttp2_session_mem_recv$"),
    Stage("headers noted, call made", _NATIVE + r"5http2__on_(begin_headers|header)$|" + _NATIVE + r"Session__(begin|header)$"),
    Stage("body received", _NATIVE + r"5http2__on_data_chunk$|" + _NATIVE + r"4call_4Call_receive$"),
    Stage("headers and input complete", _NATIVE + r"5http2__on_frame_recv$|" + _NATIVE + r"4call_4Call_end_input$"),
    Stage("taken in: errors, counters", _NATIVE + r"9dataplane_9DataPlane_(serve_inbox|_serve|_infer|_note_refused)$"),
    Stage("protobuf read", _NATIVE + r"5codec_parse_"),
    Stage("route drawn", _NATIVE + r"10routetable_"),
    Stage("bound to the signature", _NATIVE + r"7request_7Request_(new|bind|_bind\w+)$|" + _NATIVE + r"tp_new_\w*7request_Request"),
    Stage("admitted and queued", _NATIVE + r"4lane_4Lane_(admit|_push)$"),
    Stage("turn of the loop", _NATIVE + r"10connection_(3Hub|10Connection)|" + _NATIVE + r"9dataplane_9DataPlane_pump"),
    Stage("batch formed", _NATIVE + r"4lane_4Lane_(pump|_form|_decide|_released|_unlink|_perform_inline)$|" + _NATIVE + r"5batch_5Batch_(add|perform)$"),
    Stage("rows gathered", _NATIVE + r"5batch_5Batch__gather"),
    Stage("Python around the model", _NATIVE + r"5batch_5Batch__(run|check)$"),
    Stage("the model: ONNX Runtime with its binding", r"", "onnxruntime"),
    Stage("counted by the monitor", _NATIVE + r"5batch_5Batch__watch$|" + _NATIVE + r"(7monitor|4tile|8rowcount|6sketch)_"),
    Stage("answer encoded", _NATIVE + r"5batch_(5Batch__scatter|encode_rows)|" + _NATIVE + r"5codec_encode_"),
    Stage("settled and counted", _NATIVE + r"4lane_4Lane_(complete|_settle|_take_result|_note_run)$|" + _NATIVE + r"3arm_3Arm_note"),
    Stage("answer submitted (nghttp2)", _NATIVE + r"4call_4Call_(answer|push|_start|on_answer|_charged)$"),
    Stage("HTTP/2 out: HPACK, frames (nghttp2)", _NATIVE + r"5http2_7Session_pull$|^nghttp2_session_mem_send$"),
    Stage("answer and trailers handed over", _NATIVE + r"4call_(_on_read|advance|4Call__submit_trailers)$"),
    Stage("stream closed, call freed", _NATIVE + r"5http2__on_stream_close$|" + _NATIVE + r"4call_4Call_close$|" + _NATIVE + r"tp_dealloc_\w*4call_Call"),
    Stage("written to the socket", r"^(__)?send$"),
)  # fmt: skip
OTHER = "other threads and the interpreter"

_BY_OBJECT = tuple(stage for stage in STAGES if stage.object)
_BY_SYMBOL = tuple(stage for stage in STAGES if not stage.object)


@cache
def stage_of(symbol: str, file: str) -> str | None:
    """The stage that this function stands for; None: ask its caller."""
    for stage in (*_BY_OBJECT, *_BY_SYMBOL):
        if stage.holds(symbol, file):
            return stage.name
    return None
