"""The version that runs, which is written into saved models."""

from importlib.metadata import version

__version__ = version("sksoftmax")
