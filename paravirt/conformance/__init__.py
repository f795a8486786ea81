"""The conformance suite: whether a backend's ops leave the machine as the specification says.

``pytest --pyargs paravirt.conformance --paravirt-backend NAME`` boots the reference kernel on the backend once for
each case, stops it where rest_init would begin, calls one op there and looks at registers, tables and memory.
At the end it prints each op as pass, fail (expected, got), missing, or not applicable.

An op of which the platform has no use is named in the backend's `absent` mapping, by its own name or by its group
(the module of its specification), with the reason.
"""
