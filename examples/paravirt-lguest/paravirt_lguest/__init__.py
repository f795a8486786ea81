"""lguest's design as a backend: a host below, the kernel in ring 1, hypercalls by an interrupt of their own."""
