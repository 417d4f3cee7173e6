"""Ring writers that stop at each store to shared memory: for readers in between, and for their death."""

from collections import deque

import numpy as np

from marketfeed.core.few import few_of
from marketfeed.core.mirror import MirrorWriter
from marketfeed.core.rings import Rings
from marketfeed.core.writer import RingWriter


class Steps:
    """Replaces an array of the writer, and records the readers' view at each store."""

    def __init__(self, array, name, note):
        self._array, self._name, self._note = array, name, note

    def __getitem__(self, key):
        item = self._array[key]
        return Steps(item, self._name, self._note) if isinstance(item, np.ndarray) and item.ndim else item

    def __setitem__(self, key, value):
        self._note(self._name)
        self._array[key] = value

    def __gt__(self, other):
        return self._array > getattr(other, "_array", other)

    def put(self, at, values, **how):
        self._note(self._name)
        self._array.put(at, values, **how)

    def __getattr__(self, name):
        return getattr(self._array, name)


class Died(BaseException):
    """Simulated death of the writer's process."""


class EitherWriter(RingWriter):
    """A writer that writes batches of one or two ticks one by one, and others by arrays."""

    def write(self, batch):
        publisher = self._publisher
        few = 0 < len(batch) <= publisher.most and not publisher.inherited
        return self.write_few(few_of(batch)) if few else super().write(batch)


def writer_noting(rings, note, kind=RingWriter):
    """Make a writer that calls ``note(array)`` before each store; ``note`` may raise Died."""
    writer = kind(rings)
    publisher = writer._publisher
    for name in ("_claimed", "_slots", "_published", "_published_g"):
        setattr(publisher, name, Steps(getattr(publisher, name), name, note))
    if isinstance(writer, MirrorWriter):
        writer._base = Steps(writer._base, "_base", note)
        return writer
    few = writer._few
    for name, own in (("_claimed", "claimed"), ("_slots", "records"), ("_published", "published")):
        setattr(few, own, [Steps(array, name, note) for array in getattr(few, own)])
    return writer


class Queued:
    """Replaces an array of a writer: its stores wait in ``stores`` until they are called."""

    def __init__(self, array, stores):
        self._array, self._stores = array, stores

    def __getitem__(self, key):
        item = self._array[key]
        return Queued(item, self._stores) if isinstance(item, np.ndarray) and item.ndim else item

    def __setitem__(self, key, value):
        array = self._array
        self._stores.append(lambda: array.__setitem__(key, value))

    def put(self, at, values):
        array = self._array
        self._stores.append(lambda: array.put(at, values))

    def __getattr__(self, name):
        return getattr(self._array, name)


class Loads:
    """Replaces an array of a reader: calls ``before`` before each load."""

    def __init__(self, array, before):
        self._array, self._before = array, before

    def __getitem__(self, key):
        if isinstance(self._array, tuple):  # of the arrays of both channels
            return Loads(self._array[key], self._before)
        item = self._array[key]
        if isinstance(item, np.ndarray) and item.ndim and np.may_share_memory(item, self._array):
            return Loads(item, self._before)  # no load yet
        self._before()
        return self._array[key]

    def take(self, *arguments, **how):
        self._before()
        return self._array.take(*arguments, **how)

    def copy(self):
        self._before()
        return self._array.copy()

    def reshape(self, *shape):
        self._before()
        return self._array.reshape(*shape)


class Interleaved:
    """Runs a mirror's writer a few stores at a time, whenever a reader loads from shared memory.

    ``script`` yields after each call of the writer; ``steps`` yields how many stores come before a load.
    """

    def __init__(self, rings, writer, script, steps):
        self.rings, self._script, self._steps = rings, script, steps
        self._stores, self._ended = deque(), False
        publisher = writer._publisher
        for name in ("_claimed", "_slots", "_published", "_published_g"):
            setattr(publisher, name, Queued(getattr(publisher, name), self._stores))
        writer._base = Queued(writer._base, self._stores)
        sequence = writer.rings.sequence
        sequence._area = Queued(sequence._area, self._stores)

    def step(self):
        """Do a few stores, or none."""
        for _ in range(next(self._steps)):
            self._store()

    def _store(self):
        if not self._stores and next(self._script, self) is self:
            self._ended = True
        if self._stores:
            self._stores.popleft()()

    def finish(self):
        """Do all that is left."""
        while not self._ended or self._stores:
            self._store()

    def watched(self, block):
        """Return rings over ``block`` for a reader, each of whose loads lets the writer go on."""
        rings = Rings(block)
        for name in ("_claimed", "_published", "_base", "_records", "_g", "_published_g"):
            setattr(rings, name, Loads(getattr(rings, name), self.step))
        few = rings.few
        for name in ("_claimed", "_published", "_base"):
            setattr(few, name, tuple(Loads(each, self.step) for each in getattr(few, name)))
        few._records = Loads(few._records, self.step)  # a buffer: one load may see all of it
        few._sequence = Loads(rings.few._sequence, self.step)
        rings.sequence._area = Loads(rings.sequence._area, self.step)
        return rings
