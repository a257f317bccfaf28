"""Latency and memory on targets, and their statistics."""
