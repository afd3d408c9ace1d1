"""A global and the streams of its zones, for the rules of merging."""

from __future__ import annotations

import pytest

from tests.zones_up import Global, Stream


@pytest.fixture
def mesh() -> Global:
    return Global()


@pytest.fixture
def west() -> Stream:
    return Stream()


@pytest.fixture
def east() -> Stream:
    return Stream("east")
