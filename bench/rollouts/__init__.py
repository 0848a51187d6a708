"""Rollouts in a real gateway under load: how soon a bad candidate is gone, whom it harmed, and what watching costs."""
