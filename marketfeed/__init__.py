"""marketfeed: a real-time market-data distribution engine."""

from marketfeed.core.records import QUOTE, TRADE
from marketfeed.tap import tap

__all__ = ["QUOTE", "TRADE", "__version__", "tap"]
__version__ = "0.1.0"
