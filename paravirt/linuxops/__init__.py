"""A real Linux's own op tables: counted, traced, and replaced by a backend's.

Such a kernel fills its pv_*_ops tables by itself and calls through them. So what is wanted of an op is put behind
its slot: a stub that is counted, a stub that shows the call to Python, or another implementation. `pages.py` is
where it lies and when it is put there, which the platform says; `slots.py` puts it there; `counting.py` and
`tracing.py` are the two kinds of stub; `assigned.py` and `adapt.py` serve a backend's table; `install.py` connects.
"""
