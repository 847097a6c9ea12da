"""A JSON document as it is met, each of its values taken as the type that is expected at its place."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TypeVar

Scalar = float | int | str | bool | None
Known = TypeVar("Known")


class UnexpectedError(ValueError):
    """`contenders[0].points[3].lanes: expected a whole number, got "x"`."""


class Fields:
    """The entries of an object. One of another type is an error that names its place; so is a text, a flag or a whole
    number that is not there, while a list or a mapping that is not there is empty, and a number is NaN."""

    def __init__(self, values: object, where: str = "") -> None:
        self._where = where
        self._values: dict[str, object] = self._taken(values, where, dict, "an object")

    def text(self, key: str) -> str:
        return self._get(key, str, "a text")

    def flag(self, key: str) -> bool:
        return self._get(key, bool, "true or false")

    def whole(self, key: str) -> int:
        return self._whole(self._entry(key), self._place(key))

    def whole_or_none(self, key: str) -> int | None:
        return None if self._values.get(key) is None else self.whole(key)

    def number(self, key: str) -> float:
        """NaN for null, for JSON has no other word for what is not known."""
        return self._number(self._values.get(key), self._place(key))

    def wholes(self, key: str) -> tuple[int, ...]:
        return tuple(self._whole(value, place) for value, place in self._items(key))

    def numbers(self, key: str) -> tuple[float, ...]:
        return tuple(self._number(value, place) for value, place in self._items(key))

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(self._taken(value, place, str, "a text") for value, place in self._items(key))

    def scalars(self, key: str) -> tuple[Scalar, ...]:
        return tuple(self._scalar(value, place) for value, place in self._items(key))

    def mapping(self, key: str) -> dict[str, Scalar]:
        inner = Fields(self._values.get(key, {}), self._place(key))
        return {str(name): inner._scalar(value, inner._place(name)) for name, value in inner._values.items()}

    def shares(self, key: str) -> dict[str, float]:
        inner = Fields(self._values.get(key, {}), self._place(key))
        return {str(name): inner.number(name) for name in inner._values}

    def objects(self, key: str) -> Iterator[Fields]:
        for value, place in self._items(key):
            yield Fields(value, place)

    def wrong(self, key: str, expected: str) -> UnexpectedError:
        return UnexpectedError(f"{self._place(key)}: expected {expected}, got {self._values.get(key)!r:.60}")

    def _entry(self, key: str) -> object:
        if key not in self._values:
            raise UnexpectedError(f"{self._place(key)}: missing")
        return self._values[key]

    def _place(self, key: str) -> str:
        return f"{self._where}.{key}" if self._where else key

    def _get(self, key: str, kind: type[Known], words: str) -> Known:
        return self._taken(self._entry(key), self._place(key), kind, words)

    def _items(self, key: str) -> list[tuple[object, str]]:
        values = self._taken(self._values.get(key, []), self._place(key), list, "a list")
        return [(value, f"{self._place(key)}[{number}]") for number, value in enumerate(values)]

    def _scalar(self, value: object, place: str) -> Scalar:
        if value is None or isinstance(value, float | int | str):
            return value
        raise UnexpectedError(f"{place}: expected a single value, got {value!r:.60}")

    def _whole(self, value: object, place: str) -> int:
        if isinstance(value, bool):
            raise UnexpectedError(f"{place}: expected a whole number, got {value!r}")
        return self._taken(value, place, int, "a whole number")

    def _number(self, value: object, place: str) -> float:
        if value is None:
            return math.nan
        if isinstance(value, bool) or not isinstance(value, float | int):
            raise UnexpectedError(f"{place}: expected a number, got {value!r:.60}")
        return float(value)

    @staticmethod
    def _taken(value: object, place: str, kind: type[Known], words: str) -> Known:
        if isinstance(value, kind):
            return value
        raise UnexpectedError(f"{place or 'the document'}: expected {words}, got {value!r:.60}")
