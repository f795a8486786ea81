"""The same kernel on several backends: do they agree, and what does each cost?

`runs.py` boots each in a process of its own, `verdict.py` says whether they agree (`rules.py`: what may differ in
the console), `costs.py` and `lmbench.py` make the tables, `html.py` the report, `command.py` is the command.
"""
