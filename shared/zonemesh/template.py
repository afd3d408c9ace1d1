"""The part of Go's text/template that hostnames use, parsed once, rendered often.

Understood: `{{ .Field }}`, `{{ "text" }}`, `{{ `text` }}`, calls of named functions with fields
and strings (`{{ label "k" }}`), pipelines, comments, and the trim markers `{{-` and `-}}`. There is
no control flow, no variables and no parentheses: none of Kuma's documented templates has any.
`split` alone is for a template of more than that.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, Self

from zonemesh.errors import InputError

Function = Callable[..., str]

_NO_FUNCTIONS: Mapping[str, Function] = MappingProxyType({})
_SPACE = " \t\r\n"
_TRIM_LEFT = re.compile(rf"-[{_SPACE}]")
_TRIM_RIGHT = re.compile(rf"[{_SPACE}]-\Z")
_COMMENT = re.compile(r"/\*(?:.*?)\*/", re.DOTALL)
_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
      | (?P<field>\.[A-Za-z_][A-Za-z0-9_]*)
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<string>"(?:[^"\\\n]|\\.)*")
      | (?P<raw>`[^`]*`)
      | (?P<pipe>\|)
      | (?P<openquote>["`])
    """,
    re.VERBOSE,
)
_VERB = re.compile(r"%(.)", re.DOTALL)
_KEYWORDS = frozenset(
    ("block", "break", "continue", "define", "else", "end", "if", "range", "template", "with")
)


class TemplateError(InputError):
    """A template that cannot be parsed, or that cannot be rendered with the data given."""

    code = "bad_template"


class _Text(NamedTuple):
    """A string literal, as an operand."""

    value: str


class _Field(NamedTuple):
    name: str
    line: int


class _Call(NamedTuple):
    name: str
    arguments: tuple[_Text | _Field | _Call, ...]
    line: int


_Operand = _Text | _Field | _Call


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template. Equal if made from equal text."""

    text: str
    fields: frozenset[str] = field(compare=False)
    """The fields that it reads, so that costly ones need not be computed for nothing."""
    _parts: tuple[str | _Field | _Call, ...] = field(compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Compile a template.

        Raises:
            TemplateError: Not of the language above; the text names the line, as Go's does.
        """
        parts = _parse(text)
        return cls(text, frozenset(_fields(parts)), tuple(parts))

    def render(
        self, data: Mapping[str, str], functions: Mapping[str, Function] = _NO_FUNCTIONS
    ) -> str:
        """Fill the template in.

        Args:
            data: Field values by name, without the dot.
            functions: What may be called beside Go's own `print` and `printf`. They refuse their
                arguments with a TemplateError.

        Raises:
            TemplateError: An unknown field or function, wrong arguments, or a function refused.
        """
        return "".join(
            [
                part if isinstance(part, str) else _value(part, data, functions)
                for part in self._parts
            ]
        )

    def values(self, field: str, rendered: str) -> set[str]:
        """What a field may have been where this was rendered: more than one, if it is ambiguous.

        Nothing if the field does not stand for itself in the template, or the text is not of it.
        """
        parts = self._parts
        at = next((i for i, each in enumerate(parts) if _is_field(each, field)), None)
        if at is None:
            return set()
        starts = _boundaries(parts[:at], rendered, last=False)
        ends = _boundaries(parts[at + 1 :], rendered, last=True)
        return {rendered[start:end] for start in starts for end in ends if start < end}


def _is_field(part: str | _Operand, name: str) -> bool:
    return isinstance(part, _Field) and part.name == name


def _boundaries(parts: Sequence[str | _Operand], rendered: str, *, last: bool) -> Sequence[int]:
    """Where a text may be divided from the parts before it, or (last) after it."""
    if not parts:
        return [len(rendered)] if last else [0]
    nearest = parts[0] if last else parts[-1]
    if not isinstance(nearest, str):
        return range(len(rendered) + 1)
    if len(parts) == 1:
        fits = rendered.endswith(nearest) if last else rendered.startswith(nearest)
        return [len(rendered) - len(nearest) if last else len(nearest)] if fits else []
    found = [i for i in range(len(rendered)) if rendered.startswith(nearest, i)]
    return found if last else [i + len(nearest) for i in found]


def _value(operand: _Operand, data: Mapping[str, str], functions: Mapping[str, Function]) -> str:
    if isinstance(operand, _Field):
        try:
            return data[operand.name]
        except KeyError:
            raise _error(operand.line, f"can't evaluate field {operand.name}") from None
    if isinstance(operand, _Text):
        return operand.value
    function = functions.get(operand.name) or _BUILTINS.get(operand.name)
    if function is None:
        raise _error(operand.line, f'function "{operand.name}" not defined')
    arguments = [_value(argument, data, functions) for argument in operand.arguments]
    try:
        return function(*arguments)
    except TemplateError as error:
        raise _error(operand.line, f"error calling {operand.name}: {error}") from None
    except TypeError:
        if _accepts(function, arguments):
            raise  # a bug inside the function, not in the template
        text = f"wrong number of args for {operand.name}: got {len(arguments)}"
        raise _error(operand.line, text) from None


def _accepts(function: Function, arguments: list[str]) -> bool:
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    return True


def _error(line: int, text: str) -> TemplateError:
    return TemplateError(f"template: :{line}: {text}")


def _fields(parts: list[str | _Field | _Call]) -> list[str]:
    found: list[str] = []
    pending: list[str | _Operand] = list(parts)
    while pending:
        part = pending.pop()
        if isinstance(part, _Field):
            found.append(part.name)
        elif isinstance(part, _Call):
            pending += part.arguments
    return found


class Action(NamedTuple):
    """What stands between `{{` and `}}`, without its trim markers."""

    body: str
    line: int


def split(text: str) -> list[str | Action]:
    """Split a text at its actions; comments are gone and white space is trimmed as they say.

    Raises:
        TemplateError: An action, string or comment that has no end.
    """
    return _Splitter(text).pieces()


def _parse(text: str) -> list[str | _Field | _Call]:
    parts: list[str | _Field | _Call] = []
    for piece in split(text):
        _append(parts, piece if isinstance(piece, str) else _action(piece.body, piece.line))
    return parts


class _Splitter:
    """Trimming first, since it reaches over both neighbours."""

    def __init__(self, text: str) -> None:
        self._text = text

    def pieces(self) -> list[str | Action]:
        pieces: list[str | Action] = []
        position = 0
        trim = False
        while (start := self._text.find("{{", position)) >= 0:
            end = self._end(start)
            body = self._text[start + 2 : end]
            literal = self._text[position:start]
            if trim:
                literal = literal.lstrip(_SPACE)
            if _TRIM_LEFT.match(body):
                literal, body = literal.rstrip(_SPACE), body[1:]
            if trim := _TRIM_RIGHT.search(body) is not None:
                body = body[:-1]
            pieces.append(literal)
            if not _is_comment(body := body.strip(_SPACE), line := self._line(start)):
                pieces.append(Action(body, line))
            position = end + 2
        tail = self._text[position:]
        pieces.append(tail.lstrip(_SPACE) if trim else tail)
        return pieces

    def _end(self, start: int) -> int:
        """Where the `}}` of an action is that does not stand in a string or comment."""
        position = start + 2
        if _TRIM_LEFT.match(self._text, position):
            position += 2
        if self._text.startswith("/*", position):
            comment = _COMMENT.match(self._text, position)
            if comment is None:
                raise _error(self._line(start), "unclosed comment")
            position = comment.end()
        while position < len(self._text):
            if self._text.startswith("}}", position):
                return position
            token = _TOKEN.match(self._text, position)
            if token is not None and token.lastgroup == "openquote":
                kind = "quoted string" if token[0] == '"' else "raw quoted string"
                raise _error(self._line(position), f"unterminated {kind}")
            position = token.end() if token is not None else position + 1
        raise _error(self._line(start), "unclosed action")

    def _line(self, position: int) -> int:
        return self._text.count("\n", 0, position) + 1


def _append(parts: list[str | _Field | _Call], operand: str | _Operand | None) -> None:
    if isinstance(operand, _Text):
        operand = operand.value
    if not operand:
        return
    last = parts[-1] if parts else None
    if isinstance(operand, str) and isinstance(last, str):
        parts[-1] = last + operand
    else:
        parts.append(operand)


def _is_comment(body: str, line: int) -> bool:
    if not body.startswith("/*"):
        return False
    if _COMMENT.fullmatch(body) is None:
        raise _error(line, "comment ends before closing delimiter")
    return True


def _action(body: str, line: int) -> _Operand | None:
    value: _Operand | None = None
    for command in _commands(body, line):
        value = _command(command, value, line)
    return value


def _commands(body: str, line: int) -> list[list[_Text | _Field | str]]:
    """The words of each stage of a pipeline: literals, fields, and function names as plain str."""
    commands: list[list[_Text | _Field | str]] = [[]]
    position = 0
    while position < len(body):
        token = _TOKEN.match(body, position)
        if token is None:
            raise _error(line, f"unexpected {json.dumps(body[position])} in operand")
        position = token.end()
        match token.lastgroup:
            case "pipe":
                commands.append([])
            case "space":
                continue
            case group:
                if not body.startswith((*_SPACE, "|"), position) and position < len(body):
                    raise _error(line, f"unexpected {json.dumps(body[position])} in operand")
                commands[-1].append(_word(group or "", token[0], line))
    return commands


def _word(group: str, text: str, line: int) -> _Text | _Field | str:
    match group:
        case "field":
            return _Field(text[1:], line)
        case "raw":
            return _Text(text[1:-1])
        case "string":
            try:
                return _Text(json.loads(text))
            except ValueError:
                raise _error(line, f"invalid syntax: {text}") from None
        case _:
            if text in _KEYWORDS:
                raise _error(line, f"{{{{{text}}}}} is not supported")
            return text


def _command(words: list[_Text | _Field | str], piped: _Operand | None, line: int) -> _Operand:
    if not words:
        raise _error(line, "missing value for command")
    head, *rest = words
    arguments = [_Call(word, (), line) if isinstance(word, str) else word for word in rest]
    if piped is not None:
        arguments.append(piped)
    if isinstance(head, str):
        return _Call(head, tuple(arguments), line)
    if arguments:
        raise _error(line, "can't give argument to non-function")
    return head


def _printf(pattern: str, *arguments: str) -> str:
    """Go's verbs for strings: %s, %v, %q; everything else is refused rather than printed as %!."""
    left = list(arguments)

    def fill(verb: re.Match[str]) -> str:
        match verb[1]:
            case "%":
                return "%"
            case "s" | "v" | "q" if left:
                value = left.pop(0)
                return json.dumps(value, ensure_ascii=False) if verb[1] == "q" else value
            case _:
                raise TemplateError(f"bad verb or missing argument at {verb[0]!r}")

    text = _VERB.sub(fill, pattern)
    if left:
        raise TemplateError(f"{len(left)} arguments too many")
    return text


_BUILTINS: Mapping[str, Function] = MappingProxyType(
    {"print": lambda *arguments: "".join(arguments), "printf": _printf}
)
