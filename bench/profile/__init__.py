"""Where the time of one request goes: the gateway under perf (nanoseconds) and under callgrind (instructions)."""
