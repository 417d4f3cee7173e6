"""marketfeed: a real-time market-data distribution engine."""

from marketfeed.core.records import QUOTE, TRADE

__all__ = ["QUOTE", "TRADE", "__version__"]
__version__ = "0.1.0"
