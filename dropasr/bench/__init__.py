"""Measurements of exported nets in the engines of dropasr/runtime/engines: times with their word error rates, and what bounds them."""
