"""Rows on a Dask cluster: functions of a partition that run on the workers, and the client that sums their results."""
