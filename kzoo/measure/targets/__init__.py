"""What a model is measured on, one file per kind of target."""
