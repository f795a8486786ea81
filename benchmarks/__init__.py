"""Benchmarks of the machine, each as a ratio to QEMU's TCG in alternating runs."""
