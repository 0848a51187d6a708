"""The Open Inference Protocol over HTTP/1.1: Triton's REST surface."""
