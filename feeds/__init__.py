"""Sources of ticks, one module or folder each; they import marketfeed's core, errors and Feed protocol only."""
