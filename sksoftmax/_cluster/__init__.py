"""Fits on a Dask cluster: functions that run on the workers, one partition each, and the client that sums results.

``sksoftmax.dask`` calls it.
"""
