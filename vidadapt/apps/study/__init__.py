"""Methods x frames x seeds, their costs, table and plots; what a model uses and sees.

Nothing is exported here, import from the modules: the processes that are measured load `benchmark`,
`cost` and `loading`, and must not hold pandas and matplotlib, too.
"""
