"""Servers built on other engines, which serve the same subscriptions, for perf/peers.py."""
