"""Solvers, one file each, their learning-rate schedules, and the helpers that they share.

The plan in ``_training`` chooses and builds them.
"""
