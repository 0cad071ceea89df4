"""Comparison of runs on equal budgets: what is run, what is read back, what can be told, and how it is shown."""
