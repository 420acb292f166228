"""Compaction of nets that users bring: their own PyTorch model in, the same model with fewer units out."""
