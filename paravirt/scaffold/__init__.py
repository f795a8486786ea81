"""``paravirt new-backend NAME``: an installable backend package that passes conformance as it is, to be changed.

`make.py` fills the files of `template` in; the op table is written from the hook specification, so that it names
every op there is.
"""
