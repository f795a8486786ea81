"""The monitor that stands behind a VMI ROM: what VMware's hypervisor was to its guests."""
