"""The gateway in front of a real tritonserver, beside the same server asked directly: `python -m bench.triton`."""
