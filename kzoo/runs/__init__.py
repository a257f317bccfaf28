"""The whole pipeline: config, steps, run folder, ledger."""
