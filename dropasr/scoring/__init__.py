"""Word error rate, and bootstrap intervals of everything that a table prints."""
