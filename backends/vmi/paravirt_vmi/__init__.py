"""The VMI backend: the ops of a VMI client, on an option ROM and its monitor."""
