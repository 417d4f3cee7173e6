"""One colour for each tier, in every panel of a picture, in the page and from report to report.

The colours are those of Okabe and Ito, "Color Universal Design" (2008), without their yellow, which is too
light for lines, and three of Paul Tol's "muted": all can be told apart with any kind of colour blindness.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KNOWN: Final = {"vip": "#0072B2", "premium": "#D55E00", "basic": "#009E73"}
OTHERS: Final = ("#CC79A7", "#E69F00", "#56B4E9", "#000000", "#882255", "#117733", "#999999")


def painted(counts: Mapping[tuple[str, ...], int], fields: Sequence[str]) -> dict[tuple[str, ...], str]:
    """Return the colour of each row, by its key; ``counts`` has the values of each, ``fields`` make up keys.

    It is that of the row's tier. Where rows are not told apart by tier it is that of all else in the key but
    the hop, and the ten names with the most values differ.
    """
    by_tier = "tier" in fields
    names = {key: key[fields.index("tier")] if by_tier else " ".join(key[1:]) for key in counts}
    totals: dict[str, int] = {}
    for key, name in names.items():
        totals[name] = totals.get(name, 0) + (0 if by_tier else counts[key])
    colours = {name: colour for name, colour in KNOWN.items() if by_tier}
    # Those of known tiers that are not there come last, so that ten other tiers differ.
    unused = [colour for name, colour in KNOWN.items() if name not in totals]
    free = (*OTHERS, *unused) if by_tier else (*KNOWN.values(), *OTHERS)
    unknown = sorted(totals.keys() - colours.keys(), key=lambda name: (-totals[name], name))
    colours |= {name: free[number % len(free)] for number, name in enumerate(unknown)}
    return {key: colours[name] for key, name in names.items()}
