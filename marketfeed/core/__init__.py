"""Words of the field, pure: records, symbols, rings, cursors. No trio, no clock, no sockets."""
