// SPDX-License-Identifier: GPL-2.0-or-later
/* What the machine asks the hypervisor's C for. */
#include "xen.h"

const struct platform paravirt_platform = {
	.machine_size = sizeof(struct machine),
	.exception = xen_exception,
	.fill = xen_fill,
};
