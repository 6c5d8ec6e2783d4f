"""What a file that should be text is instead, told by how it begins: a name may say anything."""

from __future__ import annotations

_DATA = "give it a name that ends in .parquet where data is read"
_UNPACK = "unpack it"
_TEXT = "write it as UTF-8 text"
_KINDS: tuple[tuple[bytes, str, str], ...] = (
    (b"PAR1", "a Parquet file", _DATA),
    (b"ARROW1", "an Arrow file", "write it as Parquet or JSON Lines"),
    (b"\xff\xff\xff\xff", "an Arrow stream", "write it as Parquet or JSON Lines"),
    (b"\x1f\x8b", "compressed by gzip", _UNPACK),
    (b"BZh", "compressed by bzip2", _UNPACK),
    (b"\xfd7zXZ", "compressed by xz", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", _UNPACK),
    (b"7z\xbc\xaf", "a 7z archive", _UNPACK),
    (b"PK\x03\x04", "a zip archive, as spreadsheets and documents are", "unpack it, or save a spreadsheet as CSV"),
    (b"SQLite format 3\0", "an SQLite database", _TEXT),
    (b"%PDF-", "a PDF document", _TEXT),
    (b"\x80\x04", "a pickle of Python", _TEXT),
    (b"\x93NUMPY", "a NumPy array", _TEXT),
    (b"\xff\xfe", "UTF-16 text", "save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "save it as UTF-8"),
    (b"version https://git-lfs.github.com/spec/", "a pointer of Git LFS", "fetch the file itself:  git lfs pull"),
    (b"<!doctype html", "a web page", "download the file itself"),
    (b"<html", "a web page", "download the file itself"),
)


def other_kind(content: bytes) -> str | None:
    """What is told of a file that is no plain text: ``by its content, a Parquet file: ...``; None: it may be text."""
    begins = content[:64]
    for mark, kind, remedy in _KINDS:
        if begins.startswith(mark) or (mark[:1] == b"<" and begins.lstrip().lower().startswith(mark)):
            return f"by its content, {kind}: {remedy}"
    return None
