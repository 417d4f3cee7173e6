"""Rules over ticks: what is measured, when an episode begins and ends, and the alerts of it. Pure."""

from marketfeed.alerts.rules.episodes import SLICE
from marketfeed.alerts.rules.registry import RuleSpec, read_specs, rule_specs, unmatched
from marketfeed.alerts.rules.rule import FeedState
from marketfeed.alerts.rules.ruleset import Judged, RuleSet

__all__ = ["SLICE", "FeedState", "Judged", "RuleSet", "RuleSpec", "read_specs", "rule_specs", "unmatched"]
