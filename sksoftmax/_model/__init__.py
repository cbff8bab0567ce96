"""Fitted models: predictions, state in files, and conversion from and to the classes of scikit-learn.

The estimators inherit from its mixins or call it.
"""
