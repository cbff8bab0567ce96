"""Input and output data: checks, targets, rows in memory and out of core, batches, and the array library of results.

The estimators call it before a fit and a prediction, and place fitted arrays with it afterwards.
"""
