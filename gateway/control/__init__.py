"""The control plane: what operators and their tools talk to, beside the path of requests."""
