"""Ring writers that stop at each store to shared memory: for readers in between, and for their death."""

import numpy as np

from marketfeed.core.few import few_of
from marketfeed.core.mirror import MirrorWriter
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
