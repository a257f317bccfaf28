"""Architectures: blocks.py and one file per family; build.py makes a model of a name."""
