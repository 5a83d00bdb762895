"""Large JSON objects, a member at a time.

A header or an index comes from outside and may have 100 MB. Parsed at once, a malicious one would
take many times its size in memory ("[[],[],[]..."). Here only what is expected becomes objects.
"""

from __future__ import annotations

import codecs
import re
from contextlib import suppress
from json import JSONDecodeError
from typing import TYPE_CHECKING, Any

from .errors import CheckpointError
from .strict_json import DECODER, check_text

if TYPE_CHECKING:
    from collections.abc import Iterator

_SPACE = re.compile(rb"[ \t\n\r]*")


class Scanner:
    """Reads UTF-8 JSON from front to back. Every method raises `CheckpointError`, with `where` and the byte.

    Args:
        data: The text.
        where: What is being read, for the message.
    """

    def __init__(self, data: bytes, *, where: str) -> None:
        self._data = data
        self._where = where
        self._position = 0

    def members(self, *, limit: int) -> Iterator[str]:
        """The keys of the object that begins here, each of at most `limit` bytes.

        Whoever iterates reads the key's value before asking for the next one, and refuses a key that
        comes twice with `twice`.
        """
        self._expect(b"{")
        if self.next_is(b"}"):
            self._position += 1
            return
        while True:
            key = self.string(limit=limit)
            self._expect(b":")
            yield key
            if not self.next_is(b","):
                break
            self._position += 1
        self._expect(b"}")

    def string(self, *, limit: int) -> str:
        """The string that begins here, of at most `limit` bytes as it is written."""
        if not self.next_is(b'"'):
            raise self._error("expected a string in double quotes")
        begin = self._position
        end = self._end_of_string(begin, limit)
        try:
            text = check_text(DECODER.decode(self._data[begin : end + 1].decode("utf-8")))
        except UnicodeDecodeError as error:
            raise self._error(f"not UTF-8 text (byte {begin + error.start})") from error
        except JSONDecodeError as error:
            raise self._error(error.msg) from error
        except ValueError as error:
            raise CheckpointError(f"{self._where}: {error}") from error
        self._position = end + 1
        return text

    def value(self, *, limit: int) -> Any:
        """The value that begins here, whatever it is, of at most `limit` bytes."""
        is_object = self.next_is(b"{")
        begin = self._position
        try:
            # Mostly an object without another one in it, whose end is found without decoding what follows.
            end = self._data.find(b"}", begin, begin + limit) + 1
            if is_object and end:
                with suppress(JSONDecodeError):
                    value = DECODER.decode(self._data[begin:end].decode("utf-8"))
                    self._position = end
                    return value
            text, _ = codecs.utf_8_decode(self._data[begin : begin + limit], "strict", False)
            value, used = DECODER.raw_decode(text)
        except RecursionError as error:
            raise self._error("nested too deeply to be a real file") from error
        except UnicodeDecodeError as error:
            raise self._error(f"not UTF-8 text (byte {begin + error.start})") from error
        except JSONDecodeError as error:
            is_cut = len(self._data) - begin > limit and error.pos >= len(text) - 8
            raise self._error(f"a value of more than {limit} bytes" if is_cut else error.msg) from error
        except ValueError as error:  # the decoder's hooks
            raise self._error(str(error)) from error
        self._position = begin + len(text[:used].encode())
        return value

    def end(self) -> None:
        """Check that nothing but white space is left."""
        self._skip_space()
        if self._position != len(self._data):
            raise self._error("something follows the object")

    def next_is(self, byte: bytes) -> bool:
        """Whether `byte` comes next, after white space."""
        if self._data.startswith(byte, self._position):
            return True
        self._skip_space()
        return self._data.startswith(byte, self._position)

    def twice(self, key: str) -> CheckpointError:
        """The error for a key that came before."""
        return CheckpointError(f"{self._where}: not valid JSON: the key {key!r:.200} is given twice")

    def _end_of_string(self, begin: int, limit: int) -> int:
        start, last = begin + 1, begin + limit + 2
        while (end := self._data.find(b'"', start, last)) >= 0:
            before = self._data[start:end]
            if (len(before) - len(before.rstrip(b"\\"))) % 2 == 0:
                return end
            start = end + 1
        if len(self._data) > last:
            raise self._error(f"a string of more than {limit} bytes")
        raise self._error("a string without an end")

    def _expect(self, byte: bytes) -> None:
        if not self.next_is(byte):
            raise self._error(f"expected {byte.decode()!r}")
        self._position += 1

    def _skip_space(self) -> None:
        match = _SPACE.match(self._data, self._position)
        if match is not None:
            self._position = match.end()

    def _error(self, what: str) -> CheckpointError:
        found = self._data[self._position : self._position + 20]
        if self._data.startswith(codecs.BOM_UTF8):
            what = "it begins with a byte order mark. Save it as UTF-8 without one"
        there = repr(found)[1:] if found else "the end"
        return CheckpointError(f"{self._where}: not valid JSON: {what}, found {there} at byte {self._position}")
