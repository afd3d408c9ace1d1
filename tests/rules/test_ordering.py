"""Keys in the order of lists, and the same after any changes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from zonemesh.registry import Registry
from zonemesh.rest import ordering

KIND = "MeshService"
keys = st.builds(
    "/".join,
    st.tuples(
        st.sampled_from(["default", "default-2", "m"]),
        st.sampled_from(["", "east", "west"]),
        st.sampled_from(["", "ns"]),
        st.sampled_from(["a", "a-b", "a.b", "b", "redis"]),
    ),
)


class Listed:
    """A registry and the orders that are kept of it."""

    def __init__(self, **limits: int) -> None:
        self.registry = Registry()
        self.made = 0
        self.orders = ordering.Orders(self._keys, deciding=("Zone",), **limits)
        self.registry.add_index(self.orders)

    def _keys(self, kind: str) -> Sequence[str]:
        self.made += 1
        return list(self.registry.table(kind))

    def put(self, key: str, payload: bytes | None = b"1", kind: str = KIND) -> None:
        self.registry.put(kind, key, payload)

    async def order(self, kind: str = KIND) -> Sequence[str]:
        return await self.orders.of(kind, lambda key: key in self.registry.table(kind))


def test_lists_go_by_mesh_then_name_then_origin() -> None:
    expected = ["a///a", "a//ns/a", "a/west//a", "a/east//b", "b/west//a"]
    assert asyncio.run(ordering.ordered(reversed(expected))) == expected


@given(st.sets(keys))
def test_the_keys_of_a_mesh_are_all_those_and_no_others(held: set[str]) -> None:
    in_order = asyncio.run(ordering.ordered(held))
    for mesh in ("default", "default-2", "m", "none"):
        expected = [key for key in in_order if key.startswith(f"{mesh}/")]
        assert ordering.of_mesh(in_order, mesh) == expected


@given(st.lists(st.lists(st.tuples(keys, st.booleans()))))
def test_a_kept_order_is_what_it_would_be_made_anew(steps: list[list[tuple[str, bool]]]) -> None:
    async def run() -> None:
        listed = Listed()
        await listed.order()
        for step in steps:
            for key, there in step:
                listed.put(key, b"1" if there else None)
            assert await listed.order() == await ordering.ordered(listed.registry.table(KIND))
        assert listed.made == 1, "made anew although few keys came and went"

    asyncio.run(run())


async def test_an_answer_does_not_change_under_its_reader() -> None:
    listed = Listed()
    listed.put("m///a")
    before = await listed.order()
    listed.put("m///b")
    await listed.order()
    assert before == ["m///a"]


async def test_after_many_changes_an_order_is_made_anew() -> None:
    listed = Listed()
    await listed.order()
    for number in range(2 * ordering.PATCHES_MAX):
        listed.put(f"m///{number}")
    assert len(await listed.order()) == 2 * ordering.PATCHES_MAX
    assert listed.made == 2


async def test_what_comes_while_an_order_is_made_is_in_it() -> None:
    listed = Listed()
    for number in range(5_000):
        listed.put(f"m///{number}")
    asking = asyncio.ensure_future(listed.order())
    await asyncio.sleep(0)
    listed.put("m///late")
    listed.put("m///17", None)
    order = await asking
    assert "m///late" in order
    assert "m///17" not in order


async def test_an_order_is_forgotten_when_a_record_changes_that_decides_about_others() -> None:
    listed = Listed()
    await listed.order()
    listed.put("///east", kind="Zone")
    await listed.order()
    assert listed.made == 2


async def test_the_orders_of_several_kinds_share_a_limit() -> None:
    listed = Listed(kept_max=15)
    for number in range(10):
        listed.put(f"m///{number}")
        listed.put(f"m///{number}", kind="Dataplane")
    for _ in range(2):
        assert len(await listed.order(KIND)) == 10
        assert len(await listed.order("Dataplane")) == 10
    assert listed.made == 4, "only one of the two fits"
