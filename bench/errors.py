"""Why a benchmark could not be measured; its text is shown to the person beside the benchmark's name."""


class BenchError(Exception):
    """A measurement that would be wrong, or could not be made: what, what was expected, and the cure."""


class NotMeasured(BenchError):
    """Not wrong, only not possible in this run (no pids behind --target, nothing built yet)."""
