"""Core types: records, symbols, rings, cursors. Pure: no trio, no clock, no sockets."""
