"""The demo of `make demo`: a gateway under load, and three releases at once, one good and two bad.

models    trains the six versions, each on data that scikit-learn ships, and keeps the rows that none of them has seen
stream    sends those rows, and counts who answered what, and how often wrongly
host      the gateway, as a user starts it
follow    what the three rollouts are doing, asked of the control plane
screen    the live view; words: what is said on the way
picture   the timelines; report: why, out of the audit log
"""
