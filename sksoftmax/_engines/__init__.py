"""Engines: loss, gradient, probabilities and Hessian products over rows; the devices and threads that run them.

The objective in ``_maths`` and the solvers call them; ``registry`` finds them by name.
"""
