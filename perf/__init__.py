"""Benchmarks, one question per file; README.md in this folder lists them."""
