"""The native backend: an op table that names the native implementations, on a bare PC."""
