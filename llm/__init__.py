"""A language model from text to export, in plain PyTorch: what the page shows, importable in a few lines."""
