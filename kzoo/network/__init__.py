"""Any functional Keras model: its file, its counts, its stages."""
