"""An engine whose interval tier sends frames that are worth compressing."""

CONFIG = """
[gateway]
default_tier = "premium"
[tiers.premium]
interval_ms = 40 # one phase
delivery = "every"
[tiers.vip]
interval_ms = 0
delivery = "every"
[[feeds]]
name = "demo"
type = "synthetic"
symbols = 40
rate = 1000
"""
