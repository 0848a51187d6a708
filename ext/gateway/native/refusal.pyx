"""The one exception of the native request path."""


class Refusal(Exception):
    """Refusal(code, text): gRPC status code and the text that the caller reads."""

    def __init__(self, int code, str text not None):
        super().__init__(code, text)
        self.code = code
        self.text = text

    def __str__(self):
        return self.text


class CircuitOpen(Refusal):
    """The version has failed too often and gets no requests now."""
