"""Text cells of tables that people open in a spreadsheet."""

from __future__ import annotations

from typing import Final

FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would run begins with


def as_text(name: str) -> str:
    """Return ``name`` as a cell that no spreadsheet takes for a formula (OWASP, "CSV Injection")."""
    return f"'{name}" if name.startswith(FORMULAS) else name
