"""The order of lists, and keys kept in it between requests.

Lists go by mesh and name, then by where a resource comes from. Kuma sorts by the name shown, which
for copies ends in a hash. Hashing 100,000 names for the order of one page would take a second, and
the result differs only where one display name is the beginning of another's.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterable, Sequence

from zonemesh.runtime.slicing import SLICE, slices

PATCHES_MAX = 500
"""Changes that are put into a kept order one by one, at some 30 µs; with more it is made anew."""

KEPT_MAX = 1_000_000
"""Keys in all kept orders, 8 octets each."""


def sortable(packed: str) -> str:
    """A packed key with its parts in sorting order.

    Strings and not tuples: 100,000 of them sort in a third of the time, and wake no collector.
    """
    mesh, zone, namespace, name = packed.split("/")
    return f"{mesh}\0{name}\0{zone}\0{namespace}"


async def ordered(packed: Iterable[str]) -> list[str]:
    """Packed keys in the order of lists."""
    # The very strings that came are answered: a kept order then costs a pointer for each.
    by_sortable: dict[str, str] = {}
    runs: list[str] = []
    async for part in slices(list(packed)):
        run = {sortable(each): each for each in part}
        by_sortable |= run
        runs += sorted(run)
    if len(runs) > SLICE:
        runs.sort()  # runs in order: a merge
    answer: list[str] = []
    async for part in slices(runs):
        answer += [by_sortable[each] for each in part]
    return answer


def of_mesh(keys: Sequence[str], mesh: str) -> Sequence[str]:
    """Those of one mesh among keys in order."""
    start = bisect_left(keys, f"{mesh}\0", key=sortable)
    return keys[start : bisect_left(keys, f"{mesh}\1", start, key=sortable)]


class Orders:
    """The keys of kinds that were listed, in order; an index of the registries they stand in.

    An answer is never changed afterwards: whoever holds it may go on reading.
    """

    def __init__(
        self,
        keys: Callable[[str], Iterable[str]],
        *,
        deciding: Collection[str] = (),
        kept_max: int = KEPT_MAX,
    ) -> None:
        """Keep nothing yet.

        Args:
            keys: Those of a kind that are there now, in no order.
            deciding: Kinds whose records decide what `keys` answers of other kinds.
            kept_max: Keys in all kept orders but the last one asked for.
        """
        self._kept_max = kept_max
        self._keys = keys
        self._deciding = deciding
        self._orders: dict[str, list[str]] = {}
        self._changed: dict[str, set[str]] = {}
        """By kind that is kept or being put in order: keys that came or went since."""

    def changed(self, kind: str, key: str, old: bytes | None, new: bytes | None) -> None:
        if kind in self._deciding:
            self._orders.clear()
            self._changed.clear()
            return
        changed = self._changed.get(kind)
        if changed is not None and (old is None or new is None):
            changed.add(key)
            if len(changed) > PATCHES_MAX:
                self._forget(kind)

    async def of(self, kind: str, present: Callable[[str], bool]) -> Sequence[str]:
        """All keys of a kind in order; `present` says whether one is among them now."""
        if kind not in self._orders:
            changed = self._changed[kind] = set()
            made = await ordered(self._keys(kind))
            if self._changed.get(kind) is not changed:
                return made  # changed by too much meanwhile, or made by somebody else too
            self._orders[kind] = made
            self._make_room(kind)
        self._patch(kind, present)
        return self._orders[kind]

    def _patch(self, kind: str, present: Callable[[str], bool]) -> None:
        changed = self._changed[kind]
        if not changed:
            return
        keys = self._orders[kind].copy()
        for key in changed:
            at = bisect_left(keys, sortable(key), key=sortable)
            held = at < len(keys) and keys[at] == key
            if held and not present(key):
                del keys[at]
            elif not held and present(key):
                insort(keys, key, at, key=sortable)
        self._orders[kind] = keys
        changed.clear()

    def _make_room(self, kind: str) -> None:
        while len(self._orders) > 1 and sum(map(len, self._orders.values())) > self._kept_max:
            self._forget(next(each for each in self._orders if each != kind))

    def _forget(self, kind: str) -> None:
        self._orders.pop(kind, None)
        del self._changed[kind]
