"""Pretrained weights: files of any origin, read as named arrays and never executed."""
