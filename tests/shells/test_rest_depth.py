"""Documents nested deeper than anybody needs: refused before they can overflow a stack."""

from __future__ import annotations

import pytest

from zonemesh.rest import document
from zonemesh.rest.errors import MalformedError

LEVELS = [33, 980, 30_000]


@pytest.mark.parametrize("levels", LEVELS)
def test_deep_yaml_is_refused(levels: int) -> None:
    with pytest.raises(MalformedError, match="nested deeper"):
        document.from_yaml(b"a: " + b"[" * levels + b"]" * levels)


@pytest.mark.parametrize("levels", LEVELS)
def test_deep_json_is_refused(levels: int) -> None:
    with pytest.raises(MalformedError):
        document.from_json(b'{"a":' * levels + b"1" + b"}" * levels)


def test_what_is_not_utf8_is_malformed() -> None:
    with pytest.raises(MalformedError):
        document.from_json(b'{"type":"\xff"}')
