"""All that touches the CPU engine, memory, buses and virtual time."""
