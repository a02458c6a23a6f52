"""Command lines that are wrong in some way, or only look it, and what becomes of each.

    python -m tests.bad_inputs                   # all of them, a table and a summary
    python -m tests.bad_inputs --kind numbers    # one kind
    python -m tests.bad_inputs --out found.json  # what became of each, as JSON

`lines` is the table by kind, `material` makes the files that it names, `runner` runs one line
in a folder of its own and looks at what it said, how long it took and what it left.
"""
