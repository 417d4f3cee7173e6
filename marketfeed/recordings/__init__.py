"""Recordings: written from a running engine, read, exported, and run through simulated tiers.

``read`` returns a recording as numpy arrays, Arrow tables and pandas frames.
"""

from marketfeed.recordings.reading import Chunk, Recording, read

__all__ = ["Chunk", "Recording", "read"]
