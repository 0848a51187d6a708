"""Measures the gateway: the whole of it beside the limit of HTTP/2 (load/), and its pieces alone (micro/).

Never imported by the product and imports none of it: a benchmark that shares the code it measures cannot see it change.
"""
