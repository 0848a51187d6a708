"""The stations of a request's way, in order, and the functions by which a stack tells at which one it is.

A sample belongs to the innermost function on its stack that is named here; what is not named (malloc, nghttp2's inside)
belongs to whoever called it. Patterns are matched against the symbol; `object` against the file that it comes from.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache


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
    return re.search(pattern.replace("@", r"^__pyx_\w*gateway_6native_\w*?"), symbol) is not None


# `@` stands for how Cython begins the name of a function of ours.
STAGES = (
    Stage("wait for sockets: epoll", r"^epoll_p?wait|^uv__io_poll$"),
    Stage("read the socket", r"^(__)?(libc_)?read$|^recv"),
    Stage("event loop and its callbacks", r"^__pyx_\w*_6uvloop_|^uv_"),
    Stage("HTTP/2 in: frames, HPACK, rules (nghttp2)", r"@5http2_7Session_feed$|^nghttp2_session_mem_recv$"),
    Stage("headers noted, call made", r"@5http2__on_(begin_headers|header)$|@Session__(begin|header|note_usual)$"),
    Stage("body received", r"@5http2__on_data_chunk$|@4call_4Call_receive$"),
    Stage("headers and input complete", r"@5http2__on_frame_recv$|@4call_4Call_end_input$"),
    Stage("taken in: errors, counters", r"@9dataplane_9DataPlane_(serve_inbox|_serve|_infer|_note_refused)$"),
    Stage("protobuf read", r"@5codec_parse_"),
    Stage("route drawn", r"@10routetable_"),
    Stage("bound to the signature", r"@7request_7Request_(new|bind|_bind\w+)$|@tp_new_\w*7request_Request"),
    Stage("admitted and queued", r"@4lane_4Lane_(admit|_push)$"),
    Stage("turn of the loop", r"@10connection_(3Hub|10Connection)|@9dataplane_9DataPlane_pump"),
    Stage(
        "batch formed",
        r"@4lane_4Lane_(pump|_form|_decide|_released|_unlink|_perform_inline)$|@5batch_5Batch_(add|perform)$",
    ),
    Stage("rows gathered", r"@5batch_5Batch__gather"),
    Stage("Python around the model", r"@5batch_5Batch__(run|check)$"),
    Stage("the model: ONNX Runtime with its binding", r"", "onnxruntime"),
    Stage("counted by the monitor", r"@5batch_5Batch__watch$|@(7monitor|4tile|8rowcount|6sketch)_"),
    Stage("answer encoded", r"@5batch_(5Batch__scatter|encode_rows)|@5codec_encode_"),
    Stage("settled and counted", r"@4lane_4Lane_(complete|_settle|_take_result|_note_run)$|@3arm_3Arm_note"),
    Stage("answer submitted (nghttp2)", r"@4call_4Call_(answer|push|_start|on_answer|_charged)$"),
    Stage("HTTP/2 out: HPACK, frames (nghttp2)", r"@5http2_7Session_pull$|^nghttp2_session_mem_send$"),
    Stage("answer and trailers handed over", r"@4call_(_on_read|advance|4Call__submit_trailers)$"),
    Stage("stream closed, call freed", r"@5http2__on_stream_close$|@4call_4Call_close$|@tp_dealloc_\w*4call_Call"),
    Stage("written to the socket", r"^(__)?send$"),
)
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
