"""The race of ``bench_race``: the search for settings, the final rounds, the jobs, the rivals and the report."""
