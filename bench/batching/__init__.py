"""Is eager batching enough? Searches the best fixed (batch size, delay) for each work, and holds eager against it."""
