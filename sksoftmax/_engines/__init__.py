"""Engines: loss, gradient, probabilities and Hessian products of rows; the devices and threads they run on."""
