"""Settings of a session server as its parts take them, from the configuration. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marketfeed.core.units import MS, S
from marketfeed.fanout.keepalive import Timing
from marketfeed.fanout.tiers import Tier
from marketfeed.gateway.limits import Limits

if TYPE_CHECKING:
    from marketfeed.config.schema import Config, LimitsConfig


def tiers_of(config: Config, worker: int = 0) -> dict[str, Tier]:
    """Return the tiers by name; the flushes of different workers are interleaved."""
    shift = worker / max(1, config.engine.workers)
    return {
        name: Tier(name, int(tier.interval_ms * MS), tier.delivery == "every", tier.send_buffer_bytes, shift)
        for name, tier in config.tiers.items()
    }


def limits_of(config: LimitsConfig) -> Limits:
    """Return the limits per session, per address and in all."""
    return Limits(
        request_bytes=config.request_bytes,
        symbols_per_session=config.symbols_per_session,
        sessions=config.sessions,
        sessions_per_ip=config.sessions_per_ip,
        requests_per_s=config.requests_per_s,
        handshake_s=config.handshake_s,
        patterns_per_session=config.patterns_per_session,
        handshakes_per_s=config.handshakes_per_s,
    )


def timing_of(config: LimitsConfig) -> Timing:
    """Return the intervals of heartbeats and pings, and the time until a stalled session ends."""
    return Timing(int(config.heartbeat_s * S), int(config.ping_s * S), int(config.stall_s * S))
