"""The way in: the Feed protocol, supervision of feeds, screening, and the pump that writes the rings."""
