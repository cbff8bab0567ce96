"""The mathematics that solvers share: the objective, its curvature, preconditioners, Newton's and proximal steps."""
