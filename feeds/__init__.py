"""Sources of ticks, one module or folder each; of marketfeed they import core, errors and the Feed protocol."""
