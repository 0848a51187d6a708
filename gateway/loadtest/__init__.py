"""Load for users: how many requests a server answers, how quickly, and whether rightly. `gateway bench` is its command.

Speaks gRPC's Open Inference Protocol, so it measures any server of it, Triton too. The driving is native
(gateway.native.generator); here is what comes before and after.
"""
