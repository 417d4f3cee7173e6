"""Ingestion: the Feed protocol, supervision of feeds, validation, and the pump that writes the rings."""
