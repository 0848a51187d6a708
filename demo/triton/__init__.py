"""A real tritonserver on this machine, for the demo, the tests and the measurements: never a fake.

The server is the one inside the wheel `nvidia-pytriton`, with its Python backend. The wheel's own launcher is not used:
the binary is started directly.
"""
