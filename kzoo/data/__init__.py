"""Datasets: found, validated, decoded once into a store, and split."""
