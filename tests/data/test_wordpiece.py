"""WordPiece by hand, and id for id beside the library's fast tokenizer."""

from __future__ import annotations

import random
import unicodedata

import pytest
from tokenizers import Tokenizer

from course_utils.data import pydocs
from course_utils.data.sources import find_model
from course_utils.data.wordpiece import SPECIAL, basic_split, encode, tokenize, wordpiece
from course_utils.errors import DataError, ModelError

PIECES = "un ##aff ##able ##ff ##a u ##n a ##b ab ##c abc , !"
SMALL = {token: i for i, token in enumerate([*SPECIAL, *PIECES.split()])}
ODD = [
    "",
    " \t\n",
    "Gyllenhaal and Þórbergsdóttir met O'Neil-Smythe in Llanfairpwllgwyngyll.",
    "3.14159 1,000,000 0x7fff 2024-02-30 1e-5 50% #42",
    "🙂 👩‍👩‍👧‍👦 🇫🇷 ☕️ ok",
    "你好，世界! 東京タワー 한국어 mixed中文words",
    "𠀀𪜀 at the block's edge: \U0002b81f\U0002b820\U0002b91f\U0002b920",
    "def f(x: int) -> str:\n\treturn x ** 2 + self._y[0] // 3  # ok?",
    "naïve café Ångström Ünïcödé e\u0301 ﬁn ½ ² Ⅷ ℌ",
    "İstanbul ΌΔΟΣ ΣΑΣ Straße ǅ",
    "zero\0byte \x07bell soft\u00adhyphen zero\u200bwidth \ufeffmark \ufffd",
    "\x0b vertical\x0c tab\x1cs and\x85 private \ue000",
    "no\u00a0break thin\u2009space line\u2028end \u3000wide",
    "`$100 <tag> a^b ~x |y| = + \\ «quoted» “curly” … — ·¿?",
    "x" * 100,
    "x" * 101,
    "supercalifragilisticexpialidocious" * 4,
    "[CLS] a [MASK] in the [SEP] text[PAD][UNK], [mask] and [ MASK ] too",
    "हिन्दी العربية עברית ไทย Ελληνικά Русский",
]


@pytest.fixture(scope="module")
def fast() -> Tokenizer:
    """The library's tokenizer, without its own cutting and padding."""
    tokenizer = Tokenizer.from_file(str(find_model(say=str).path / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


@pytest.fixture(scope="module")
def vocabulary(fast) -> dict[str, int]:
    return fast.get_vocab()


# The algorithm, by hand


@pytest.mark.parametrize(
    ("word", "pieces"),
    [
        ("unaffable", ["un", "##aff", "##able"]),
        ("abc", ["abc"]),
        ("abcb", ["abc", "##b"]),
        ("ab", ["ab"]),  # not a + ##b: the longest first
        ("ac", ["a", "##c"]),
        ("una", ["un", "##a"]),
        ("b", ["[UNK]"]),  # only ##b is in the vocabulary
        ("abx", ["[UNK]"]),  # not ab and [UNK]
        ("unaffx", ["[UNK]"]),
        ("aun", ["[UNK]"]),  # u begins a word, ##u is not there
        ("", []),
    ],
)
def test_the_longest_piece_that_fits(word, pieces):
    assert wordpiece(word, SMALL) == pieces


def test_greedy_does_not_go_back():
    """a + ##bc would do, but ab is longer than a, and after it nothing fits."""
    assert wordpiece("abc", {"a": 0, "ab": 1, "##bc": 2}) == ["[UNK]"]


def test_very_long_words_are_unknown():
    letters = {"a": 0, "##a": 1}
    assert wordpiece("a" * 100, letters) == ["a"] + ["##a"] * 99
    assert wordpiece("a" * 101, letters) == ["[UNK]"]
    assert wordpiece("aaa", letters, max_chars=2, unknown="?") == ["?"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's 5$!", ["it", "'", "s", "5", "$", "!"]),
        ("Café\tCAFE\u0301", ["cafe", "cafe"]),
        ("a中b文", ["a", "中", "b", "文"]),
        ("soft\u00adhy\0phen", ["softhyphen"]),
        ("no\u00a0break\n", ["no", "break"]),
        ("ΣΑΣ", ["σασ"]),
        ("x_y^z", ["x", "_", "y", "^", "z"]),
        ("[MASK]", ["[", "mask", "]"]),
        ("", []),
    ],
)
def test_basic_split(text, words):
    assert basic_split(text) == words


def test_special_tokens_and_segments():
    cls, sep, mask = (SMALL[f"[{name}]"] for name in ("CLS", "SEP", "MASK"))
    assert tokenize("AB![MASK]abc", SMALL) == ["ab", "!", "[MASK]", "abc"]
    assert encode("ab [MASK]", SMALL) == {
        "input_ids": [cls, SMALL["ab"], mask, sep],
        "token_type_ids": [0, 0, 0, 0],
    }
    assert encode("ab", SMALL, pair="a zzz") == {
        "input_ids": [cls, SMALL["ab"], sep, SMALL["a"], SMALL["[UNK]"], sep],
        "token_type_ids": [0, 0, 0, 1, 1, 1],
    }


@pytest.mark.parametrize("call", [basic_split, lambda t: tokenize(t, SMALL)])
@pytest.mark.parametrize("text", [None, ["ab"], 7, b"ab"])
def test_what_is_no_text_is_refused(call, text):
    with pytest.raises(DataError, match=f"A {type(text).__name__} where a text is needed"):
        call(text)


def test_what_is_no_vocabulary_is_refused():
    with pytest.raises(ModelError, match="A list where a vocabulary"):
        tokenize("ab", list(SMALL))
    with pytest.raises(ModelError, match=r"lacks \[CLS\], \[MASK\]\."):
        encode("ab", {k: v for k, v in SMALL.items() if k not in ("[CLS]", "[MASK]")})


@pytest.mark.parametrize(("pair", "max_length", "least"), [(None, 1, 2), ("a", 2, 3), (None, 0, 2)])
def test_no_room_for_the_special_tokens(pair, max_length, least):
    with pytest.raises(DataError, match=f"at least {least}"):
        encode("ab", SMALL, pair=pair, max_length=max_length)
    assert len(encode("ab", SMALL, pair=pair, max_length=least)["input_ids"]) == least


# Beside the fast tokenizer


def assert_equal(ours: dict, theirs) -> None:
    assert ours["input_ids"] == theirs.ids
    assert ours["token_type_ids"] == theirs.type_ids


@pytest.mark.weights
@pytest.mark.parametrize("text", ODD)
def test_odd_texts(fast, vocabulary, text):
    assert tokenize(text, vocabulary) == fast.encode(text, add_special_tokens=False).tokens
    assert_equal(encode(text, vocabulary), fast.encode(text))


@pytest.mark.weights
def test_random_strings(fast, vocabulary):
    """Pieces of all odd texts, mixed: what stands beside a character matters, too."""
    draw, characters = random.Random(0), "".join(ODD)
    for _ in range(2000):
        text = "".join(draw.choices(characters, k=draw.randint(1, 12)))
        assert_equal(encode(text, vocabulary), fast.encode(text))


@pytest.mark.weights
def test_every_character_of_unicode_3_2(fast):
    """The libraries know different versions of Unicode; these characters are in all of them."""
    for number in range(0x110000):
        c = chr(number)
        kind = unicodedata.ucd_3_2_0.category(c)
        if kind in ("Cn", "Cs", "Co") or kind != unicodedata.category(c):
            continue
        text = fast.normalizer.normalize_str(f"a{c}B")
        words = [word for word, _ in fast.pre_tokenizer.pre_tokenize_str(text)]
        assert basic_split(f"a{c}B") == words, hex(number)


@pytest.mark.weights
def test_five_thousand_real_texts(fast, vocabulary):
    texts = pydocs.corpus(progress=False)["text"][::15]
    assert len(set(texts)) == len(texts) >= 5000
    for text, theirs in zip(texts, fast.encode_batch(texts), strict=True):
        assert_equal(encode(text, vocabulary), theirs)


@pytest.mark.weights
@pytest.mark.parametrize("max_length", [3, 4, 7, 8, 9, 10, 64])
@pytest.mark.parametrize("text", ["", "one", "one two three", "one two three four five six seven"])
@pytest.mark.parametrize("pair", [None, "", "uno", "uno dos tres", "a b c d e f g h"])
def test_cutting_one_text_or_two(fast, vocabulary, text, pair, max_length):
    fast.enable_truncation(max_length)
    theirs = fast.encode(text, pair)
    fast.no_truncation()
    assert_equal(encode(text, vocabulary, pair=pair, max_length=max_length), theirs)
