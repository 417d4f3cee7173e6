"""What tests share: fakes, real processes, other clients, and scripts that run as processes of their own."""

from pathlib import Path
from typing import Final

SUPPORT: Final = Path(__file__).parent  # where those scripts are
