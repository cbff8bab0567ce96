"""A fit: the choice of solvers, the training loop, streams, regularization paths and callbacks."""
