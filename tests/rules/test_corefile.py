"""Corefile templates, held to what Go does with the same text."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zonecp.dataplane.config import Dns
from zonecp.dataplane.coredns.corefile import (
    BUILT_IN,
    FIELDS,
    Corefile,
    CorefileError,
    missing,
    plugins,
)
from zonecp.dataplane.coredns.parts import values

STOCK = frozenset(["bind", "errors", "log", "prometheus", "forward", "template", "hosts", "cache"])
KUMAS = """\
.:{{ .CoreDNSPort }} {
    # add a plugin to return NOERROR for IPv6 queries
    template IN AAAA . {
       rcode NOERROR
       fallthrough
    }

    forward . 127.0.0.1:{{ .EnvoyDNSPort }}
    alternate NOTIMP,FORMERR,NXDOMAIN,SERVFAIL,REFUSED . /etc/resolv.conf
    prometheus localhost:{{ .PrometheusPort }}
    errors
}

.:{{ .CoreDNSEmptyPort }} {
    template ANY ANY . {
      rcode NXDOMAIN
    }
}
"""


def render(text: str, **dns: object) -> str:
    return Corefile.parse(text).render(values(Dns(**dns)))  # type: ignore[arg-type]


def test_every_field_has_a_value_of_its_type() -> None:
    assert {name: type(value) for name, value in values(Dns()).items()} == dict(FIELDS)


@pytest.mark.parametrize(
    "text,expected",
    [
        ("", ""),
        (".:{{ .CoreDNSPort }} {\n}\n", ".:15053 {\n}\n"),
        ("{{.EnvoyDNSPort}} {{.PrometheusPort}} {{.CoreDNSEmptyPort}}", "15054 19153 15055"),
        ("{{ .CoreDNSLogging }} {{ .AgentDNSPort }}", "false 15056"),
        # conditions: 0, "" and false are not true
        ("{{ if .CoreDNSLogging }}log{{ end }}.", "."),
        ("{{ if .PrometheusPort }}a{{ else }}b{{ end }}", "a"),
        ('{{ if "" }}a{{ else if 0 }}b{{ else if `c` }}c{{ else }}d{{ end }}', "c"),
        ("{{ if not .CoreDNSLogging }}a{{ end }}", "a"),
        ("{{ if eq .CoreDNSPort 15053 }}a{{ end }}", "a"),
        ("{{ if eq .CoreDNSPort 1 2 15053 }}a{{ end }}", "a"),
        ("{{ if ne .BindAddresses `127.0.0.1` }}a{{ else }}b{{ end }}", "b"),
        ("{{ if and .CoreDNSPort (gt .EnvoyDNSPort 15053) }}a{{ end }}", "a"),
        ("{{ if or .CoreDNSLogging (lt .CoreDNSPort 10) }}a{{ else }}b{{ end }}", "b"),
        ("{{ if le 1 1 }}{{ if ge 1 2 }}x{{ else }}a{{ end }}{{ end }}", "a"),
        ("{{ and 0 1 }}{{ and 1 2 }}{{ or 0 3 }}{{ or 4 5 }}", "0234"),
        ("{{ .CoreDNSPort | eq 15053 }}", "true"),
        ('{{ print "a" 1 true }}', "a1true"),
        # what decides is not computed past
        ('{{ and false (eq 1 "a") }}', "false"),
        # trimming and comments
        ("a\n{{- if true }}\nb\n{{- end }}\nc", "a\nb\nc"),
        ("a {{- /* {{ if }} */ -}} b", "ab"),
        ("{{ if false -}}\n x {{- end -}} \n y", "y"),
    ],
)
def test_rendering(text: str, expected: str) -> None:
    assert render(text) == expected


@pytest.mark.parametrize(
    "text,line,why",
    [
        ("a\n{{ .CoreDNSPort", 2, "unclosed action"),
        ("\n\n{{ .Nope }}", 3, "no field .Nope; there are .CoreDNSPort, "),
        ("{{ if false }}{{ .Nope }}{{ end }}", 1, "no field .Nope"),
        ("a\n{{ if true }}\n", 2, "{{ if }} without {{ end }}"),
        ("{{ end }}", 1, "{{ end }} belongs to no {{ if }}"),
        ("{{ if 1 }}{{ else }}\n{{ else }}{{ end }}", 2, "{{ else }} after {{ else }}"),
        ("{{ if }}{{ end }}", 1, "a value is missing"),
        ("{{ range .CoreDNSPort }}{{ end }}", 1, "{{ range }} is not supported"),
        ("{{ $x := 1 }}", 1, 'unexpected "$"'),
        ("{{ upper `a` }}", 1, "no function upper"),
        ("{{ 1 2 }}", 1, "more than one value"),
        ("{{ (1 }}", 1, 'a ")" is missing'),
        ("{{ 1) }}", 1, 'unexpected ")"'),
        ("\n{{ if eq .CoreDNSPort `a` }}{{ end }}", 2, 'eq: 15053 cannot be compared with "a"'),
        ("{{ eq 1 }}", 1, "eq: takes at least 2 arguments, not 1"),
        ("{{ ne 1 2 3 }}", 1, "ne: takes 2 arguments, not 3"),
        ("{{ lt true false }}", 1, "lt: true and false have no order"),
        ("{{ not }}", 1, "not: takes 1 argument, not 0"),
    ],
)
def test_a_bad_template_is_refused_with_its_line(text: str, line: int, why: str) -> None:
    with pytest.raises(CorefileError) as caught:
        render(text)

    assert str(caught.value).startswith(f"line {line}: {why}")


@given(st.lists(st.sampled_from(["{{ if true }}", "{{ else }}", "{{ end }}", "{{-", "a", "}}"])))
def test_any_text_renders_or_is_refused(pieces: list[str]) -> None:
    with suppress(CorefileError):
        render("".join(pieces))


def test_nesting_has_a_limit() -> None:
    with pytest.raises(CorefileError, match="within each other"):
        render("{{ if 1 }}" * 5_000)
    with pytest.raises(CorefileError, match="more than 200 words"):
        render("{{ 1" + " | not" * 5_000 + " }}")
    assert render("{{ " + "(" * 99 + "1" + ")" * 99 + " }}") == "1"


def test_the_built_in_template_asks_the_agent_and_nobody_else() -> None:
    text = render(BUILT_IN, addresses=("127.0.0.1", "::1"))

    assert "bind 127.0.0.1 ::1\n" in text
    assert "forward . 127.0.0.1:15056 {" in text
    assert "15054" not in text
    assert missing(text, STOCK, "coredns") is None


def test_the_built_in_template_falls_back_behind_envoys_filter() -> None:
    text = render(BUILT_IN, mode="coredns-envoy", upstreams=("10.0.0.2", "10.0.0.3:5353"))

    assert "forward . 127.0.0.1:15054 {" in text
    assert "next NOTIMP FORMERR NXDOMAIN SERVFAIL REFUSED" in text
    assert "forward . 10.0.0.2 10.0.0.3:5353\n" in text
    assert ".:15055 {" in text


def test_fields_are_those_that_a_template_asks_for_even_in_vain() -> None:
    assert Corefile.parse("{{ if false }}{{ .EnvoyDNSPort }}{{ end }}").fields == {"EnvoyDNSPort"}


def test_kumas_own_template_is_told_what_to_do_about_alternate() -> None:
    text = render(KUMAS)

    fault = missing(text, STOCK, "/usr/bin/coredns")

    assert fault is not None
    assert fault.startswith("line 9: /usr/bin/coredns has no plugin alternate; it is not part of")
    assert missing(text, STOCK | {"alternate"}, "coredns") is None


def test_plugins_are_read_as_coredns_does() -> None:
    text = """\
# forward in a comment
(snippet) {
    errors # cache
}
.:53 {
    import snippet
    hosts /etc/hosts {
        fallthrough
    }
    log . "{remote} {" {
        class all
    }
}
"""

    assert [(plugin.name, plugin.line) for plugin in plugins(text)] == [
        ("errors", 3),
        ("hosts", 7),
        ("log", 10),
    ]
