"""Text cells of CSV files, safe for spreadsheets."""

from __future__ import annotations

from typing import Final

# First characters of text that a spreadsheet would evaluate.
FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r")


def as_text(name: str) -> str:
    """Return ``name`` as a cell that no spreadsheet evaluates as a formula (OWASP, "CSV Injection")."""
    return f"'{name}" if name.startswith(FORMULAS) else name
