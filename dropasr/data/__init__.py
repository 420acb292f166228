"""Corpora, manifests, features, the frame store."""
