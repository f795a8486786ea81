"""For tests of kernels and backends: the pytest plugin, and boots that stop where a test can look around."""
