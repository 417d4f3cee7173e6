"""Imports point one way: sources to subscribers, never back, and never in a circle."""

from __future__ import annotations

import ast
import importlib
from graphlib import TopologicalSorter
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted([*ROOT.glob("marketfeed/**/*.py"), *ROOT.glob("feeds/**/*.py")])

# Lowest first. A module imports from its own entry and from those before it.
LAYERS = [
    {"marketfeed.errors"},
    {"marketfeed.core"},
    {"marketfeed.api"},
    {
        "marketfeed.shm",
        "marketfeed.config",
        "marketfeed.client",
        "marketfeed.clock",
        "marketfeed.file_lock",
        "marketfeed.folders",
        "marketfeed.http_client",
        "marketfeed.logs",
        "marketfeed.sqlite_files",
