"""Changes of an engine's life while sessions are served: another life, or another writer of this one.

Succession.exchange   ──► new rings, new epoch: sessions reconnect
Succession.feed_with  ──► the same rings: feeds begin or end to write them, and sessions stay
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from marketfeed.checks import addresses

if TYPE_CHECKING:
    from marketfeed.builder import Beginning, Builder
    from marketfeed.config.schema import Config
    from marketfeed.engine import Engine
    from marketfeed.ingest.pump import TickWriter
    from marketfeed.server.life import Life


class Succession:
    """The changes of ``engine``, whose lives ``builder`` builds; one at a time, and not during a reload."""

    def __init__(self, engine: Engine, builder: Builder) -> None:
        self._engine, self._builder = engine, builder

    def prepare(self, beginning: Beginning) -> Life:
        """Return a life without a server, for :meth:`exchange`, such as one that is written before it serves.

        Raises as that does. Whoever does not pass it on must end it.
        """
        return self._builder.begin(self._engine.reloads.config, beginning)

    async def exchange(self, beginning: Beginning, prepared: Life | None = None) -> Life:
        """Begin another life, which takes the place of the present one; return it.

        ``prepared`` is what :meth:`prepare` has returned for ``beginning``; None: that is called here.

        New connections go to the new life when this returns. The sessions of the old one are closed, so that
        their clients reconnect, and taps are ended; the old rings are freed after the last of them. Waits
        for a reload in progress.

        Raises StartError if workers or memory are lacking, ConfigError if feeds or rules cannot be
        constructed any more, and ValueError for an invalid epoch: then the present life goes on.
        """
        async with self._engine.reloads.lock:
            config = self._engine.reloads.config
            life = prepared or self.prepare(beginning)
            try:
                life.server = self._builder.server(config, life, self._engine.access)
                watcher = self._engine.alerting.prepared(life.rings, life.symbols)
                life.roster.plan(config.feeds, addresses(config))
                await self._engine.lives.roster.stop()
                life.roster.count_on(self._engine.lives.roster)
                if beginning.fill is not None:
                    beginning.fill(life)
                await self._engine.lives.exchange(life)
            except BaseException as error:
                life.end()
                if isinstance(error, Exception):  # not Cancelled: the engine ends
                    await self._run_feeds_again(config)
                raise
            self._engine.taps.exchange(life.rings)
            self._engine.alerting.exchange(watcher, life.roster, beginning.origin)
            self._engine.overview.roster = life.roster
            await life.roster.apply(self._engine.sources)
            return life

    async def feed_with(self, writer: TickWriter | None) -> None:
        """Run the feeds in the present life with ``writer``; None: stop them, it mirrors from now on.

        Sessions stay. Returns when the feeds that ran have ended. Raises ConfigError if feeds or rules cannot
        be constructed any more; then no feed runs.
        """
        async with self._engine.reloads.lock:
            life, before = self._engine.lives.now, self._engine.lives.now.roster
            await before.stop()
            self._builder.equip(life, writer)
            self._engine.overview.roster = life.roster
            config = self._engine.reloads.config
            life.roster.plan(config.feeds, addresses(config))
            life.roster.count_on(before)
            watcher = None if writer is None else self._engine.alerting.prepared(life.rings, life.symbols)
            self._engine.alerting.exchange(watcher, life.roster, writer is not None)
            await life.roster.apply(self._engine.sources)

    async def _run_feeds_again(self, config: Config) -> None:
        """Run the feeds of the present life, if they were stopped for an exchange that has failed."""
        if self._engine.lives.roster.stopped:
            self._engine.lives.roster.plan(config.feeds, addresses(config))
            await self._engine.lives.roster.apply(self._engine.sources)
