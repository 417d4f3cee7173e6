"""Who may see what: keys and tokens, the claims that they carry, and the bounds of tenants."""
