"""Mathematics that solvers share: the objective, its curvature, preconditioners, Newton and proximal steps.

The solvers and ``_training`` call it.
"""
