"""Shared parts of the tests: fakes, real processes, third-party clients, and scripts run as processes."""

from pathlib import Path
from typing import Final

SUPPORT: Final = Path(__file__).parent  # folder of the scripts
