from typing_extensions import Buffer

from gateway.native.body import Body

def request_from_json(text: Buffer, model: str, version: str) -> tuple[Body, str] | None: ...
