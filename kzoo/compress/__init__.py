"""Compression on the graph of any functional Keras model: replayed, folded, re-parameterized."""
