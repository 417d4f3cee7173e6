"""Latency: histograms per hop and tier, their log, and reports. ``load`` reads logs as a table."""

from marketfeed.latency.read import load

__all__ = ["load"]
