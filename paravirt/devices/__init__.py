"""Devices of a PC: each knows register offsets, a clock and its interrupt line, and nothing else."""
