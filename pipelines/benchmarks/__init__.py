"""Benchmarks, their result files, and the tables that the documents render from them."""
