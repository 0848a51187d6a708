"""Peers side by side: other servers with the same ONNX models, under the same load, with every answer checked.

`python -m bench.peers` is the command. One file per peer: its version, its settings as its own documentation advises
them, and how it is started and asked. `apps/` holds what runs inside the peers' own environments.
"""
