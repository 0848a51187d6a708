"""Pieces alone: bench_<module>__<operation>.py, nanoseconds per operation in this one process.

Each module has operations() -> list[Operation]; harness.py does the timing. The only part of bench/ that imports
compiled modules of the gateway, because those are what it measures; each inside its operations().
"""
