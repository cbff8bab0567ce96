"""Fits: the choice of solvers, the training loop, streams, regularization paths and callbacks.

The estimators, and the fit on a Dask cluster, call it.
"""
