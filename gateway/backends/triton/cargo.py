"""What one ModelInfer brings: members of a batch, in the form that suits the way it takes."""

from __future__ import annotations

from gateway.backends.base import Array
from gateway.native.batch import Batch
from gateway.native.parcel import Parcel
from gateway.native.remote import Form


class Cargo:
    """Members low..high. `message`: the caller's own, where it is passed on as it came; it goes no other way."""

    __slots__ = ("_form", "_message", "_range", "batch", "is_forwarded")

    def __init__(self, form: Form, batch: Batch, low: int, high: int, message: bytes | None = None) -> None:
        self._form, self.batch, self._range, self._message = form, batch, (low, high), message
        self.is_forwarded = message is not None

    @property
    def message(self) -> bytes:
        """With its tensors. Refusal: it is larger than a message can be. One copy, however many attempts."""
        if self._message is None:
            self._message = self._form.request(self.batch, *self._range)
        return self._message

    def parcel(self) -> Parcel:
        """For one attempt by shared memory."""
        return Parcel(self._form, self.batch, *self._range)

    def read(self, data: bytes) -> list[Array]:
        """Of the answer to `message`. AnswerMismatch."""
        return self._form.answer(data)
