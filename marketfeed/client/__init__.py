"""Client side of the wire protocol: connecting to an engine's stream."""
