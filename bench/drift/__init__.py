"""Drift detection, simulated: how often it pages for nothing, how soon it finds what is there, and what others do."""
