"""The Xen backend: the ops of a paravirtual domU, on the hypercall interface of Xen."""
