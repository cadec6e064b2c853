"""Which encoding some bytes are in: it says so itself, it is UTF-8, or it is a good guess.

Old encodings do not say which they are, and most of them can read anything. So we read a sample
in each and look at what comes out. In the East Asian ones, characters of everyday use have places
of their own (the standards' first level), and a wrong reading lands beside them. In the others a
letter must fit its word: one script, no capital after a small letter, no symbol within.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from itertools import pairwise

from course_utils.errors import DataError

MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark begins it
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
WIDE = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
SAMPLE = 16_384  # bytes of lines that are not ASCII
LEAST = 0.6  # share of characters that must look right

# Where everyday characters stand: first bytes of the national standard that the codec extends.
# Row A1 is punctuation, A3 wide letters; a tie goes to the first: Hangul reads as hanzi, too.
EAST_ASIAN = {
    "cp949": ("euc_kr", frozenset({0xA1, 0xA3, *range(0xB0, 0xC9)})),
    "gb18030": ("gb2312", frozenset({0xA1, 0xA3, *range(0xB0, 0xD8)})),
    "cp932": ("euc_jp", frozenset({0xA1, 0xA3, 0xA4, 0xA5, *range(0xB0, 0xD0)})),
    "euc_jp": ("euc_jp", frozenset({0xA1, 0xA3, 0xA4, 0xA5, *range(0xB0, 0xD0)})),
    "cp950": ("big5", frozenset({0xA1, *range(0xA4, 0xC7)})),
}
OTHERS = {
    "cp1252": "LATIN",
    "cp1254": "LATIN",
    "cp1250": "LATIN",
    "iso8859_2": "LATIN",
    "cp850": "LATIN",
    "mac_roman": "LATIN",
    "cp1255": "HEBREW",
    "cp1251": "CYRILLIC",
    "koi8_r": "CYRILLIC",
    "cp1253": "GREEK",
    "cp1256": "ARABIC",
    "cp874": "THAI",
}
PUNCTUATION = frozenset("“”‘’„‚–—…•«»·°€£©®™§№¿¡\u00a0\u200e\u200f")
ODD = frozenset("ªºðþÐÞ")  # of cp1252: far rarer than the Turkish letters in their places


def known(encoding: str) -> str:
    """Python's name of an encoding; raises `DataError` if it has none of that name for text."""
    try:
        codec = codecs.lookup(encoding)
        "a".encode(codec.name)  # hex, zip and the like are codecs, too, but not for text
    except (LookupError, ValueError):
        raise DataError(
            f"There is no encoding {encoding!r}.",
            do="Examples are utf-8, utf-16, cp1252, gb18030, big5, shift_jis, euc_kr, cp1251.",
        ) from None
    return codec.name


def detect(content: bytes) -> str | None:
    """The encoding that a byte order mark or the bytes tell; None if nothing fits.

    None, too, for UTF-8 in which some bytes are damaged: all of its other letters would be wrong
    in another encoding.
    """
    for mark, codec in MARKS:
        if content.startswith(mark):
            return codec
    is_utf8 = _reads(content, "utf-8")
    # UTF-16 of English is valid UTF-8 as well, but then half of its bytes are zeros.
    if content.count(0) > (len(content) / 4 if is_utf8 else 0) and (codec := _wide(content)):
        return codec
    if is_utf8:
        return "utf-8"
    return None if _is_damaged_utf8(content) else guess(content)


def _wide(content: bytes) -> str | None:
    """The form of UTF-32 or UTF-16 in which the bytes are lines of text."""
    lines = {}
    for codec in WIDE:
        if _reads(content, codec) and "\0" not in (text := content.decode(codec)):
            lines[codec] = text.count("\n") + text.count("\r")
    best = max(lines, key=lines.__getitem__, default=None)
    return best if best and lines[best] else None


def _is_damaged_utf8(content: bytes) -> bool:
    """Whether more characters beyond ASCII can be read as UTF-8 than cannot."""
    beyond = [c for c in content.decode("utf-8", "replace") if not c.isascii()]
    return 2 * beyond.count("\ufffd") < len(beyond)


def guess(content: bytes) -> str | None:
    """The likeliest of 17 encodings for bytes that are not UTF-8; None if no text looks right.

    It is a guess: tell people, and let them choose another. Few letters say little, and what
    reads the same in two encodings, as a lone é, may have either name.
    """
    sample = _sample(content)
    scores = {codec: _score(sample, codec) for codec in (*EAST_ASIAN, *OTHERS)}
    for codec in sorted(scores, key=scores.__getitem__, reverse=True):
        if scores[codec] >= LEAST and _reads(content, codec):
            return codec
    return None


def _sample(content: bytes) -> bytes:
    """The first lines that are not ASCII: only there do the encodings differ."""
    lines, size = [], 0
    for line in re.finditer(rb"[^\r\n]+", content):
        if not line[0].isascii():
            lines.append(line[0])
            size += len(line[0])
            if size >= SAMPLE:
                break
    return b"\n".join(lines)


def _reads(content: bytes, codec: str) -> bool:
    try:
        content.decode(codec)
    except UnicodeDecodeError:
        return False
    return True


def _score(sample: bytes, codec: str) -> float:
    """The share of characters beyond ASCII that look right, 0 to 1; 0 if the codec cannot read."""
    try:
        text = sample.decode(codec)
    except UnicodeDecodeError:
        return 0.0
    if codec in EAST_ASIAN:
        return _everyday(text, *EAST_ASIAN[codec])
    return _fitting(text, OTHERS[codec])


def _everyday(text: str, standard: str, first_bytes: frozenset[int]) -> float:
    """The share of characters that the standard has among those of everyday use."""
    codes = [c.encode(standard, "ignore") for c in text if not c.isascii()]
    return sum(code[0] in first_bytes for code in codes if code) / max(1, len(codes))


def _fitting(text: str, script: str) -> float:
    """The share of characters that are punctuation, or stand in a word that looks like one."""
    right = total = 0
    for word in re.findall(r"[^\W\d_]+|[^\x00-\x7f]", text):
        n = sum(not c.isascii() for c in word)
        total += n
        if word in PUNCTUATION or (word.isalpha() and _is_word(word, script)):
            right += n
    # A symbol within a word is a letter read wrongly: it costs itself and its neighbours.
    wrong = re.findall(r"(?<=[^\W\d_])[^\w\s\x00-\x7f’·\u00a0–—…](?=[^\W\d_])", text)
    return max(0, right - 2 * len(wrong)) / max(1, total)


def _is_word(word: str, script: str) -> bool:
    """Whether all letters are of the script, and capitals stand where they may."""
    if not all(unicodedata.name(c, "").startswith(script) for c in word):
        return False
    if any(a.islower() and b.isupper() for a, b in pairwise(word)):
        return False
    return script != "LATIN" or not (ODD & set(word) or re.search(r"[^\x00-\x7f]{4}", word))
