"""dropasr: train large acoustic models with dropout, learn which units to keep, remove the others, measure what it bought."""

__version__ = "0.1.0"
