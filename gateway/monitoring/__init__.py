"""What a version is meant to see and say (profile), and how far today's traffic is from it."""
