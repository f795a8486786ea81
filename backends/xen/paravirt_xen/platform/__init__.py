"""The hypervisor: what a paravirtual i386 domain stands on."""
