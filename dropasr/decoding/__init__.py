"""The search: decoding with a graph of words, alignment with the graph of one transcript."""
