"""The Go template subset, held to what Go does with the same text."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zonemesh.errors import InputError
from zonemesh.template import Template, TemplateError

DATA = {"Name": "redis-x", "DisplayName": "redis", "Zone": "west", "Empty": ""}


def label(name: str) -> str:
    if name != "k":
        raise TemplateError(f"label {name} not found")
    return "v"


def render(text: str) -> str:
    return Template.parse(text).render(DATA, {"label": label})


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", ""),
        ("plain } text { }}", "plain } text { }}"),
        ("{{ .DisplayName }}.svc.{{.Zone}}.mesh.local", "redis.svc.west.mesh.local"),
        ("{{\n\t.Zone\r\n}}", "west"),
        ('{{ label "k" }}', "v"),
        ("{{ label `k` }}", "v"),
        ('{{ "a\\"}}\\u0062" }}', 'a"}}b'),
        ("{{ `}}\\n` }}", "}}\\n"),
        ('{{ "k" | label }}', "v"),
        ('{{"k"|label}}', "v"),
        ('{{ .Zone | printf "%s-%s" .DisplayName }}', "redis-west"),
        ('{{ print .Zone "-" .DisplayName }}', "west-redis"),
        ('{{ printf "%v 100%% %q" .Zone .Zone }}', 'west 100% "west"'),
        ("{{ .Empty }}", ""),
        # trimming
        ("a \n {{- .Zone -}} \n b", "awestb"),
        ("a {{- .Zone }} b", "awest b"),
        ("a {{ .Zone -}} b", "a westb"),
        ('a {{- " " -}} b', "a b"),
        ("{{ .Zone -}} {{- .Zone }}", "westwest"),
        ("{{ .Zone -}} a {{ .Zone }}", "westa west"),
        # comments
        ("a{{/* }} */}}b", "ab"),
        ("a {{- /* x */ -}} b", "ab"),
        ("a {{/**/ -}} b", "a b"),
    ],
)
def test_rendering(text: str, expected: str) -> None:
    assert render(text) == expected


@pytest.mark.parametrize(
    "text, reason",
    [
        ("{{ .Zone", "template: :1: unclosed action"),
        ("a\nb {{ .Zone }", "template: :2: unclosed action"),
        ("{{ }}", "missing value for command"),
        ("{{- -}}", "missing value for command"),
        ("{{ .Zone | }}", "missing value for command"),
        ('{{ "a }}', "unterminated quoted string"),
        ("{{ `a }}", "unterminated raw quoted string"),
        ('{{ "\\x" }}', "invalid syntax"),
        ("{{/* a }}", "unclosed comment"),
        ("{{/* a */ .Zone }}", "comment ends before closing delimiter"),
        ("{{ .Zone.Name }}", 'unexpected "." in operand'),
        ("{{ . }}", 'unexpected "." in operand'),
        ("{{ $x }}", 'unexpected "$" in operand'),
        ("{{ (.Zone) }}", 'unexpected "(" in operand'),
        ("{{ .Zone } }}", 'unexpected "}" in operand'),
        ('{{ "a""b" }}', "in operand"),
        ("{{ .Zone .Name }}", "can't give argument to non-function"),
        ('{{ .Zone | "a" }}', "can't give argument to non-function"),
        ("{{ if .Zone }}a{{ end }}", "{{if}} is not supported"),
    ],
)
def test_what_does_not_parse(text: str, reason: str) -> None:
    with pytest.raises(TemplateError) as error:
        Template.parse(text)

    assert str(error.value).startswith("template: :")
    assert reason in str(error.value)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("\n{{ .Missing }}", "template: :2: can't evaluate field Missing"),
        ("{{ nothing }}", 'template: :1: function "nothing" not defined'),
        ('{{ label "no" }}', "template: :1: error calling label: label no not found"),
        ("{{ label }}", "wrong number of args for label: got 0"),
        ('{{ label "a" "b" }}', "wrong number of args for label: got 2"),
        ('{{ printf "%s" }}', "missing argument at '%s'"),
        ('{{ printf "%d" .Zone }}', "bad verb"),
        ('{{ printf "a" .Zone }}', "1 arguments too many"),
    ],
)
def test_what_does_not_render(text: str, reason: str) -> None:
    template = Template.parse(text)

    with pytest.raises(InputError) as error:
        template.render(DATA, {"label": label})

    assert reason in str(error.value)


def test_a_bug_inside_a_function_is_not_blamed_on_the_template() -> None:
    def broken(_: str) -> str:
        raise TypeError("a bug")

    with pytest.raises(TypeError, match="a bug"):
        Template.parse('{{ broken "k" }}').render({}, {"broken": broken})


def test_a_template_names_the_fields_that_it_reads() -> None:
    template = Template.parse('{{ .Zone }}{{ printf "%s" .Name | print .Empty }}')

    assert template.fields == {"Zone", "Name", "Empty"}


def test_templates_of_one_text_are_equal() -> None:
    assert Template.parse("{{ .Zone }}") == Template.parse("{{ .Zone }}")
    assert Template.parse("{{ .Zone }}") != Template.parse("{{.Zone}}")


@given(st.text())
def test_text_outside_actions_is_kept(text: str) -> None:
    text = text.replace("{", "")

    assert render(text + "{{ .Zone }}" + text) == text + "west" + text


@given(st.text(alphabet='{} -./*"`|kZ\n', max_size=30))
def test_any_text_parses_or_is_refused(text: str) -> None:
    with suppress(TemplateError):  # anything else is a bug
        render(text)
