"""Corefiles from templates: the part of Go's text/template that they use, and their plugins. Pure.

Understood: fields (`{{ .CoreDNSPort }}`), `{{ if … }}`, `{{ else if … }}`, `{{ else }}` and
`{{ end }}`, numbers, strings, true and false, parentheses, pipelines, comments, the trim markers
`{{-` and `-}}`, and the functions `and or not eq ne lt le gt ge print`, each as Go has it.
Sources: Go's text/template, Kuma's page on DNS (templates of Corefiles), CoreDNS's manual.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Self

from zonemesh.errors import InputError
from zonemesh.template import Action, TemplateError, split

Value = str | int | bool

FIELDS: Final[Mapping[str, type]] = MappingProxyType(
    {
        "CoreDNSPort": int,
        "EnvoyDNSPort": int,
        "PrometheusPort": int,
        "CoreDNSEmptyPort": int,
        "CoreDNSLogging": bool,
        "AgentDNSPort": int,
        "ForwardToEnvoy": bool,
        "BindAddresses": str,
        "Upstreams": str,
        "HostsFile": str,
    }
)
"""What a template may ask for, the first five as in Kuma."""

BUILT_IN: Final = """\
.:{{ .CoreDNSPort }} {
    bind {{ .BindAddresses }}
    errors
    {{- if .CoreDNSLogging }}
    log
    {{- end }}
    {{- if .PrometheusPort }}
    prometheus 127.0.0.1:{{ .PrometheusPort }}
    {{- end }}
    {{- if .ForwardToEnvoy }}
    # Envoy's filter knows names of the mesh only: what it does not answer is asked outside.
    forward . 127.0.0.1:{{ .EnvoyDNSPort }} {
        max_fails 0
        next NOTIMP FORMERR NXDOMAIN SERVFAIL REFUSED
    }
    forward . {{ .Upstreams }}
    {{- else }}
    # The agent knows the mesh, and asks outside for other names.
    forward . 127.0.0.1:{{ .AgentDNSPort }} {
        max_fails 0
    }
    {{- end }}
}
{{- if .ForwardToEnvoy }}

# Whom Envoy's filter asks for names that it does not know.
.:{{ .CoreDNSEmptyPort }} {
    bind 127.0.0.1
    template ANY ANY . {
        rcode NXDOMAIN
    }
}
{{- end }}
"""


class CorefileError(InputError):
    """A template that is not of the language above; the text begins with `line N: `."""

    code = "bad_corefile_template"


@dataclass(frozen=True, slots=True)
class Corefile:
    """A parsed template. Equal if made from equal text."""

    text: str
    fields: frozenset[str] = field(compare=False)
    """Those that it asks for, also where a condition leaves them out."""
    _nodes: tuple[_Node, ...] = field(compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Compile a template.

        Raises:
            CorefileError: Not of the language, or a field that is none of `FIELDS`.
        """
        try:
            pieces = split(text)
        except TemplateError as error:
            _, _, line, why = str(error).split(":", 3)  # as Go's: `template: :3: unclosed action`
            raise CorefileError(f"line {line}: {why.strip()}") from error
        parser = _Blocks(pieces)
        nodes = parser.nodes()
        return cls(text, frozenset(parser.fields), nodes)

    def render(self, values: Mapping[str, Value]) -> str:
        """Fill the template in.

        Args:
            values: By field, all of `FIELDS`.

        Raises:
            CorefileError: Values that cannot be compared, or a function's wrong arguments.
        """
        return "".join(_render(self._nodes, values))


class _Field(NamedTuple):
    name: str


class _Call(NamedTuple):
    function: str
    arguments: tuple[_Expression, ...]


_Expression = Value | _Field | _Call


class _Show(NamedTuple):
    expression: _Expression
    line: int


class _Branch(NamedTuple):
    """`{{ else }}` is one whose condition is true."""

    condition: _Expression
    line: int
    nodes: tuple[_Node, ...]


class _If(NamedTuple):
    branches: tuple[_Branch, ...]


_Node = str | _Show | _If


def _render(nodes: Sequence[_Node], values: Mapping[str, Value]) -> Iterator[str]:
    for node in nodes:
        match node:
            case str():
                yield node
            case _Show(expression, line):
                yield _shown(_value(expression, values, line))
            case _If(branches):
                for branch in branches:
                    if _value(branch.condition, values, branch.line):
                        yield from _render(branch.nodes, values)
                        break


def _shown(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _value(expression: _Expression, values: Mapping[str, Value], line: int) -> Value:
    match expression:
        case _Field(name):
            return values[name]
        case _Call(function):
            found = _evaluated(expression, values, line)
            try:
                return _FUNCTIONS[function](found)
            except CorefileError as error:
                raise _fault(line, f"{function}: {error}") from None
        case _:
            return expression


def _evaluated(call: _Call, values: Mapping[str, Value], line: int) -> list[Value]:
    """The arguments, up to the one that decides for `and` and `or`."""
    found: list[Value] = []
    for argument in call.arguments:
        found.append(_value(argument, values, line))
        if call.function in ("and", "or") and bool(found[-1]) == (call.function == "or"):
            break
    return found


def _any_equal(arguments: Sequence[Value]) -> Value:
    first, *rest = _at_least(arguments, 2)
    return any(_same_kind(first, other) and first == other for other in rest)


def _two(compare: Callable[[Value, Value], bool]) -> Callable[[Sequence[Value]], Value]:
    def function(arguments: Sequence[Value]) -> Value:
        if len(arguments) != 2:
            raise CorefileError(f"takes 2 arguments, not {len(arguments)}")
        left, right = arguments
        _same_kind(left, right)
        return compare(left, right)

    return function


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Sequence[Value]], Value]:
    def function(left: Value, right: Value) -> bool:
        if isinstance(left, bool):
            raise CorefileError("true and false have no order")
        return compare(left, right)

    return _two(function)


def _same_kind(left: Value, right: Value) -> bool:
    if type(left) is not type(right):
        raise CorefileError(f"{_quoted(left)} cannot be compared with {_quoted(right)}")
    return True


def _at_least(arguments: Sequence[Value], count: int) -> Sequence[Value]:
    if len(arguments) < count:
        raise CorefileError(f"takes at least {count} arguments, not {len(arguments)}")
    return arguments


def _not(arguments: Sequence[Value]) -> Value:
    if len(arguments) != 1:
        raise CorefileError(f"takes 1 argument, not {len(arguments)}")
    return not arguments[0]


def _quoted(value: Value) -> str:
    return json.dumps(value)


_FUNCTIONS: Final[Mapping[str, Callable[[Sequence[Value]], Value]]] = MappingProxyType(
    {
        "and": lambda arguments: _at_least(arguments, 1)[-1],
        "or": lambda arguments: _at_least(arguments, 1)[-1],
        "not": _not,
        "eq": _any_equal,
        "ne": _two(operator.ne),
        "lt": _ordered(operator.lt),
        "le": _ordered(operator.le),
        "gt": _ordered(operator.gt),
        "ge": _ordered(operator.ge),
        "print": lambda arguments: "".join(map(_shown, arguments)),
    }
)


def _fault(line: int, why: str) -> CorefileError:
    return CorefileError(f"line {line}: {why}")


class _Blocks:
    """Nests what stands between `if` and `end`."""

    def __init__(self, pieces: Sequence[str | Action]) -> None:
        self._pieces = iter(pieces)
        self._depth = 0
        self.fields: set[str] = set()

    def nodes(self) -> tuple[_Node, ...]:
        nodes, ended = self._sequence()
        if ended is not None:
            raise _fault(ended.line, f"{{{{ {ended.body} }}}} belongs to no {{{{ if }}}}")
        return nodes

    def _sequence(self) -> tuple[tuple[_Node, ...], Action | None]:
        """Nodes up to the end, or to the `else` or `end` that is returned."""
        nodes: list[_Node] = []
        for piece in self._pieces:
            if isinstance(piece, str):
                if piece:
                    nodes.append(piece)
                continue
            word = piece.body.split(maxsplit=1)[:1]
            if word in (["else"], ["end"]):
                return tuple(nodes), piece
            if word == ["if"]:
                nodes.append(self._if(piece))
            else:
                nodes.append(_Show(self._expression(piece.body, piece.line), piece.line))
        return tuple(nodes), None

    def _if(self, opened: Action) -> _If:
        branches: list[_Branch] = []
        condition: _Expression = self._expression(opened.body[2:], opened.line)
        line, last = opened.line, False
        self._depth += 1
        if self._depth > _DEPTH_MAX:
            raise _fault(line, f"more than {_DEPTH_MAX} {{{{ if }}}} within each other")
        while True:
            nodes, ended = self._sequence()
            if ended is None:
                raise _fault(opened.line, "{{ if }} without {{ end }}")
            branches.append(_Branch(condition, line, nodes))
            if ended.body == "end":
                self._depth -= 1
                return _If(tuple(branches))
            if last:
                raise _fault(ended.line, f"{{{{ {ended.body} }}}} after {{{{ else }}}}")
            condition, last = self._else(ended)
            line = ended.line

    def _else(self, action: Action) -> tuple[_Expression, bool]:
        """The condition of an `else` or `else if`, and whether no other may follow."""
        word, _, rest = action.body.partition("else")
        rest = rest.strip()
        if word or (rest and rest.split(maxsplit=1)[0] != "if"):
            raise _fault(action.line, f"{{{{ {action.body} }}}} is not understood")
        return (self._expression(rest[2:], action.line), False) if rest else (True, True)

    def _expression(self, text: str, line: int) -> _Expression:
        parser = _Words(text, line)
        expression = parser.whole()
        self.fields |= parser.fields
        return expression


_DEPTH_MAX: Final = 50
_WORDS_MAX: Final = 200
"""An expression nests less deeply than it has words."""

_TOKEN: Final = re.compile(
    r"""[ \t\r\n]*(?:
        (?P<field>\.[A-Za-z_][A-Za-z0-9_]*)
      | (?P<number>[-+]?[0-9]+)(?![\w.])
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<string>"(?:[^"\\\n]|\\.)*")
      | (?P<raw>`[^`]*`)
      | (?P<mark>[|()])
    )""",
    re.VERBOSE,
)
_UNSUPPORTED: Final = frozenset(
    ("block", "break", "continue", "define", "range", "template", "with", "nil")
)


class _Words:
    """The expression of one action: a pipeline of commands, arguments in parentheses alike."""

    def __init__(self, text: str, line: int) -> None:
        self._line = line
        self._tokens = list(self._tokenize(text.strip()))
        if len(self._tokens) > _WORDS_MAX:
            raise _fault(line, f"more than {_WORDS_MAX} words in one action")
        self._at = 0
        self.fields: set[str] = set()

    def _tokenize(self, text: str) -> Iterator[tuple[str, str]]:
        at = 0
        while at < len(text):
            token = _TOKEN.match(text, at)
            if token is None:
                rest = text[at:].lstrip()
                raise _fault(self._line, f"unexpected {_quoted(rest[:1])} in {{{{ {text} }}}}")
            at = token.end()
            yield token.lastgroup or "", token[token.lastgroup or 0]

    def whole(self) -> _Expression:
        expression = self._pipeline()
        if self._at < len(self._tokens):
            raise _fault(self._line, 'unexpected ")"')
        return expression

    def _pipeline(self) -> _Expression:
        value = self._command(None)
        while self._next_is("|"):
            self._at += 1
            value = self._command(value)
        return value

    def _command(self, piped: _Expression | None) -> _Expression:
        words: list[_Expression] = []
        function: str | None = None
        while self._at < len(self._tokens) and self._tokens[self._at][1] not in ("|", ")"):
            kind, text = self._tokens[self._at]
            if kind == "name" and text not in ("true", "false") and not words and function is None:
                function = self._function(text)
                self._at += 1
            else:
                words.append(self._operand(kind, text))
        if piped is not None:
            words.append(piped)
        if function is not None:
            return _Call(function, tuple(words))
        if len(words) != 1:
            raise _fault(self._line, "a value is missing" if not words else "more than one value")
        return words[0]

    def _operand(self, kind: str, text: str) -> _Expression:
        self._at += 1
        match kind:
            case "field":
                return self._field(text[1:])
            case "number":
                return int(text)
            case "string":
                return self._string(text)
            case "raw":
                return text[1:-1]
            case "mark":
                value = self._pipeline()
                if not self._next_is(")"):
                    raise _fault(self._line, 'a ")" is missing')
                self._at += 1
                return value
            case _ if text in ("true", "false"):
                return text == "true"
            case _:
                return _Call(self._function(text), ())

    def _string(self, text: str) -> str:
        try:
            value: str = json.loads(text)
        except ValueError:
            raise _fault(self._line, f"{text} is not a string") from None
        return value

    def _field(self, name: str) -> _Field:
        if name not in FIELDS:
            raise _fault(self._line, f"no field .{name}; there are .{', .'.join(FIELDS)}")
        self.fields.add(name)
        return _Field(name)

    def _function(self, name: str) -> str:
        if name in _UNSUPPORTED:
            raise _fault(self._line, f"{{{{ {name} }}}} is not supported")
        if name not in _FUNCTIONS:
            raise _fault(self._line, f"no function {name}; there are {', '.join(_FUNCTIONS)}")
        return name

    def _next_is(self, mark: str) -> bool:
        return self._at < len(self._tokens) and self._tokens[self._at] == ("mark", mark)


class Plugin(NamedTuple):
    """A directive of a server block."""

    name: str
    line: int


def plugins(corefile: str) -> tuple[Plugin, ...]:
    """The plugins that a rendered Corefile asks for, in order.

    Snippets count as server blocks; `import` is not a plugin, and what it brings is not seen.
    """
    found: list[Plugin] = []
    depth = 0
    for number, text in enumerate(corefile.splitlines(), 1):
        words = _words(text)
        if not words:
            continue
        if depth == 1 and words[0] not in ("}", "import"):
            found.append(Plugin(words[0], number))
        depth += words[-1] == "{"
        depth -= words[0] == "}"
    return tuple(found)


def _words(line: str) -> list[str]:
    """A line's words up to a comment; a quoted one may hold spaces."""
    words = []
    for match in re.finditer(r'"(?:[^"\\]|\\.)*"|\S+', line):
        if match[0].startswith("#"):
            break
        words.append(match[0])
    return words


def missing(corefile: str, available: frozenset[str], program: str) -> str | None:
    """Which plugin a CoreDNS lacks, in which line, and what to do; None if it has all.

    Args:
        corefile: As rendered.
        available: What the program lists with `-plugins`.
        program: How to name it.
    """
    for name, line in plugins(corefile):
        if name not in available:
            return f"line {line}: {program} has no plugin {name}; {_REMEDIES.get(name, _REMEDY)}"
    return None


_REMEDY: Final = "use one that was built with it (coredns -plugins lists what it has)"
_REMEDIES: Final = {
    "alternate": (
        "it is not part of the standard CoreDNS: use one that was built with"
        " github.com/coredns/alternate, or two forward blocks, the first with"
        " `next NOTIMP FORMERR NXDOMAIN SERVFAIL REFUSED`"
    )
}
