"""Nodes of one cluster: one of them numbers the ticks, the others mirror its rings."""
