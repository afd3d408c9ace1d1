"""The library that Zonemesh's control planes and agents are made of."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("zonemesh")
except PackageNotFoundError:  # a source tree that nobody installed
    __version__ = "0.0.0"
