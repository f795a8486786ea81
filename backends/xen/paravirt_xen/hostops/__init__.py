"""Host functions of the op table: what sets the platform up, and is called a few times in a boot."""
