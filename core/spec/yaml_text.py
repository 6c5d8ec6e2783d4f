"""YAML as a spec and its neighbours are written in: read within bounds, and refused in one sentence."""

from __future__ import annotations

import re
from typing import Any

import yaml

from windowshift.core.contract.errors import SpecError

LONGEST = 4 * 1024 * 1024
"""Characters of one text; a spec has some hundreds, and prompts stand in files of their own."""
DEEPEST = 40
MOST = 200_000
"""Values in one text, with each alias counted as all that it repeats."""
_WORDS = {"int": "a whole number", "float": "a number", "timestamp": "a date", "bool": "true or false"}
_SHOWN = 40
_OTHERWISE = re.compile(r"[-+]?(?:0[0-7_]+|\d[\d_]*(?::[0-5]?\d)+(?:\.[\d_]*)?)")
"""Numbers that YAML 1.1 reads in base 8 or 60: ``017`` as 15, ``1:30`` as 90."""


class _Loader(yaml.SafeLoader):
    """Plain values, bounded: no key twice, no alias inside itself or a thousandfold, no number beyond 64 bits."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._count = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML's stubs leave it out
        mark: Any = event.start_mark
        before = self._count
        self._depth += 1
        if self._depth > DEEPEST:
            raise yaml.composer.ComposerError(None, None, f"it is nested deeper than {DEEPEST} levels", mark)
        node: Any = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(event, yaml.AliasEvent):
            size = self._sizes.get(id(node))
            if size is None:
                words = f"the alias '*{_short(event.anchor)}' stands inside what it repeats"
                raise yaml.composer.ComposerError(None, None, words, mark)
            self._count += size
        else:
            self._count += 1
            self._sizes[id(node)] = self._count - before
        if self._count > MOST:
            raise yaml.composer.ComposerError(
                None, None, f"it comes to more than {MOST:,} values with its aliases written out", mark
            )
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep=deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception as error:
            # PyYAML lets out whatever int(), date() and its own look-ups raise on a scalar.
            kind = _WORDS.get(node.tag.rpartition(":")[2], f"a {node.tag.rpartition(':')[2]}")
            raise yaml.constructor.ConstructorError(
                None, None, f"'{_short(node.value)}' is not {kind}: put it in quotes if it is text", node.start_mark
            ) from error
        if isinstance(value, int | float) and isinstance(node, yaml.ScalarNode) and _OTHERWISE.fullmatch(node.value):
            raise yaml.constructor.ConstructorError(
                None,
                None,
                f"YAML takes '{_short(node.value)}' for {value}: write that number, or put it in quotes if it is text",
                node.start_mark,
            )
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise yaml.constructor.ConstructorError(
                None, None, f"the number '{_short(node.value)}' is too large: it has more than 64 bits", node.start_mark
            )
        if isinstance(value, str) and "\0" in value:
            raise yaml.constructor.ConstructorError(
                None, None, "a text holds a NUL character, which no path and no prompt can hold", node.start_mark
            )
        return value


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    """A mapping in which a key that stands twice is an error, not the last one's victory."""
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, (str, int, float)) and key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key '{_short(key)}' stands there twice", key_node.start_mark
            )
        if isinstance(key, (str, int, float)):
            seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_yaml(text: str, source: str) -> Any:
    """Read YAML into plain values.

    Args:
        text: the YAML.
        source: what a person is told first, e.g. the file's path.

    Raises:
        SpecError: one sentence that names the line: it is not YAML, a scalar is not what its tag or form says, a key
            stands twice, or it is beyond `LONGEST`, `DEEPEST`, `MOST` or 64 bits.
    """
    if len(text) > LONGEST:
        raise SpecError(f"{source} is too long: {len(text):,} characters, and at most {LONGEST:,} are read")
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f" line {mark.line + 1}" if mark else ""
        raise SpecError(f"{source}{line} is not valid YAML: {_short(error.problem or error, 200)}") from error
    except yaml.YAMLError as error:
        raise SpecError(f"{source} is not valid YAML: {_short(error, 200)}") from error
    except RecursionError as error:
        raise SpecError(f"{source} is not valid YAML for a spec: it is nested too deeply") from error
    except (ValueError, OverflowError) as error:  # an escape like "\\UFFFFFFFF", which is no character
        raise SpecError(f"{source} is not valid YAML: {_short(error, 200)}") from error


def _short(value: object, limit: int = _SHOWN) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
