"""What is done with recordings: written from a live engine, read, exported, and run through tiers.

``read`` gives a recording as numpy arrays, Arrow tables and pandas frames.
"""

from marketfeed.recordings.reading import Chunk, Recording, read

__all__ = ["Chunk", "Recording", "read"]
