"""Notebook 02, BERT inside out: from pieces of words to the number of parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from course_utils.classroom.checks import exercise

# --- WordPiece: cut a word into pieces, greedily ---

_PIECES = (
    *("un", "una", "unable", "able", "##able", "##ble", "a", "##a", "u", "##u"),
    *("play", "player", "##er", "##s", "##ers", "p", "##p", "##lay", "##e", "##r"),
    *("foot", "##ball", "ball", "##b", "f", "##oot", "lay", "ers"),
)


def _words() -> Iterator[tuple[str, dict[str, int]]]:
    """Words in which longest and shortest, left and right, with and without ## all differ."""
    vocabulary = {piece: number for number, piece in enumerate(_PIECES)}
    for word in ("players", "unable", "unables", "football", "playxer", "footballable", "xy", "a"):
        yield word, dict(vocabulary)
    yield "abcd", {"a": 0, "abc": 1, "##b": 2, "##bcd": 3}  # a cut exists, the greedy one fails
    yield "abcde", {"abcd": 0, "##e": 1, "a": 2, "##b": 3, "##cde": 4}  # fewest is no end first


@exercise(
    cases=_words,
    hints=(
        "Two loops: the outer one moves the start through the word, the inner one tries ends from "
        "the last letter backwards. The first piece found in the vocabulary is the longest.",
        "A piece that does not stand at the beginning of the word is looked up, and written down, "
        "as '##' + its letters.",
        "When no end fits, one `return ['[UNK]']` answers for the whole word, whatever was found "
        "before. `for … else` in Python, or a flag, tells you that no end fitted.",
    ),
)
def split_word(word: str, vocabulary: Mapping[str, int]) -> list[str]:
    """The pieces of one word: from the left, always the longest that is in the vocabulary.

    Every piece but the first is written with '##' in front. A word of which some part cannot be
    cut is ['[UNK]'] as a whole. `vocabulary` maps pieces to ids.
    """
    pieces, start = [], 0
    while start < len(word):
        end = _longest(word, start, vocabulary)
        if end is None:
            return ["[UNK]"]
        pieces.append(_written(word, start, end))
        start = end
    return pieces


def _written(word: str, start: int, end: int) -> str:
    return ("##" if start else "") + word[start:end]


def _longest(word: str, start: int, vocabulary: Mapping[str, int]) -> int | None:
    ends = range(len(word), start, -1)
    return next((end for end in ends if _written(word, start, end) in vocabulary), None)


@split_word.mistake(
    "You are greedy from the wrong end: the longest piece at the end of the word is taken first. "
    "WordPiece begins at the first letter and works to the right."
)
def from_the_end(word, vocabulary):
    pieces, end = [], len(word)
    while end:
        starts = [s for s in range(end) if _written(word, s, end) in vocabulary]
        if not starts:
            return ["[UNK]"]
        pieces.insert(0, _written(word, starts[0], end))
        end = starts[0]
    return pieces


@split_word.mistake(
    "The ## is missing: you look up every piece as if it began a word. In the vocabulary 'able' "
    "and '##able' are two entries; inside a word only the second one counts."
)
def without_hashes(word, vocabulary):
    pieces, start = [], 0
    while start < len(word):
        ends = [e for e in range(len(word), start, -1) if word[start:e] in vocabulary]
        if not ends:
            return ["[UNK]"]
        pieces.append(word[start : ends[0]])
        start = ends[0]
    return pieces


@split_word.mistake(
    "You look up the right pieces and return them without their ##. The ## is part of the piece's "
    "name: without it the id, and the vector, would be those of another entry."
)
def hashes_lost(word, vocabulary):
    return [piece.removeprefix("##") for piece in split_word.reference(word, vocabulary)]


@split_word.mistake(
    "You take the shortest piece that fits. Try the ends from the last letter backwards, so that "
    "the first piece you find is the longest."
)
def shortest_first(word, vocabulary):
    pieces, start = [], 0
    while start < len(word):
        ends = range(start + 1, len(word) + 1)
        fits = [end for end in ends if _written(word, start, end) in vocabulary]
        if not fits:
            return ["[UNK]"]
        pieces.append(_written(word, start, fits[0]))
        start = fits[0]
    return pieces


@split_word.mistake(
    "Where no piece fits you put [UNK] for the rest and keep the pieces found before. In "
    "WordPiece a word that cannot be cut to its end is unknown as a whole: return ['[UNK]'] alone."
)
def unknown_rest(word, vocabulary):
    pieces, start = [], 0
    while start < len(word):
        end = _longest(word, start, vocabulary)
        if end is None:
            return [*pieces, "[UNK]"]
        pieces.append(_written(word, start, end))
        start = end
    return pieces


@split_word.mistake(
    "You put [UNK] for one letter that fits nowhere and go on after it. In WordPiece a word that "
    "cannot be cut to its end is unknown as a whole: return ['[UNK]'] alone."
)
def unknown_letter(word, vocabulary):
    pieces, start = [], 0
    while start < len(word):
        end = _longest(word, start, vocabulary)
        pieces.append("[UNK]" if end is None else _written(word, start, end))
        start = end or start + 1
    return pieces


@split_word.mistake(
    "You drop what cannot be cut and return the pieces found so far. The model would read another "
    "word without noticing: return ['[UNK]'] for the whole word."
)
def drops_the_rest(word, vocabulary):
    return [piece for piece in unknown_rest(word, vocabulary) if piece != "[UNK]"]


@split_word.mistake(
    "You search for the cut with the fewest pieces. WordPiece is greedy: it never takes a piece "
    "back, even where another first piece would have made the rest fit."
)
def fewest_pieces(word, vocabulary):
    best: list[list[str] | None] = [[]]
    for end in range(1, len(word) + 1):
        cuts = [
            [*best[start], _written(word, start, end)]
            for start in range(end)
            if best[start] is not None and _written(word, start, end) in vocabulary
        ]
        best.append(min(cuts, key=len, default=None))
    return best[-1] or ["[UNK]"]


# --- The input: a sum of three embeddings, then LayerNorm ---


def _norm(hidden: Tensor) -> Tensor:
    """LayerNorm with a scale and a shift that cannot be overlooked."""
    size = hidden.shape[-1]
    scale, shift = torch.linspace(0.5, 1.5, size), torch.linspace(-0.3, 0.4, size)
    return F.layer_norm(hidden, (size,), scale, shift, eps=1e-12)


def _inputs() -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Callable]]:
    """Ids (B, S) and three tables; the ids are small enough to be positions, by mistake."""
    generator = torch.Generator().manual_seed(0)
    for batch, length, size in ((1, 3, 4), (2, 5, 8), (3, 4, 6)):
        input_ids = torch.randint(6, (batch, length), generator=generator)
        token_type_ids = (torch.arange(length) >= length - 2).long().repeat(batch, 1)
        tables = [torch.randn(rows, size, generator=generator) for rows in (6, 7, 2)]
        yield input_ids, token_type_ids, *tables, _norm


@exercise(
    cases=_inputs,
    hints=(
        "Three look-ups and a sum: the word's vector by its id, the position's vector by its "
        "place in the text, the segment's vector by its type. Then `norm`, once.",
        "`words[input_ids]` has the shape (B, S, H). The places are 0, 1, … S-1, the same for "
        "every text: `positions[: input_ids.shape[1]]` is (S, H) and broadcasts over the batch.",
        "norm(words[…] + positions[…] + types[…]), with the sum inside the norm.",
    ),
)
def embed(
    input_ids: Tensor,
    token_type_ids: Tensor,
    words: Tensor,
    positions: Tensor,
    types: Tensor,
    norm: Callable[[Tensor], Tensor],
) -> Tensor:
    """What BERT's first layer receives, (B, S, H): word + position + segment, then LayerNorm.

    `input_ids` and `token_type_ids` are (B, S), the tables `words` (V, H), `positions` (P, H) and
    `types` (2, H); `norm` is the LayerNorm, a function of a (B, S, H) tensor.
    """
    places = positions[: input_ids.shape[1]]  # (S, H)
    return norm(words[input_ids] + places + types[token_type_ids])


@embed.mistake(
    "The LayerNorm is missing: the sum is right, and `norm` is to be called on it. Without it the "
    "first layer would get vectors of a size it never saw in training."
)
def without_norm(input_ids, token_type_ids, words, positions, types, norm):
    return words[input_ids] + positions[: input_ids.shape[1]] + types[token_type_ids]


@embed.mistake(
    "You normalise each of the three and add them afterwards. BERT adds first: one LayerNorm, of "
    "the sum."
)
def norms_each(input_ids, token_type_ids, words, positions, types, norm):
    places = positions[: input_ids.shape[1]]
    return norm(words[input_ids]) + norm(places) + norm(types[token_type_ids])


@embed.mistake(
    "You normalise the words alone and add position and segment afterwards. The LayerNorm comes "
    "last, around the sum of all three."
)
def norms_the_words(input_ids, token_type_ids, words, positions, types, norm):
    places = positions[: input_ids.shape[1]]
    return norm(words[input_ids]) + places + types[token_type_ids]


@embed.mistake(
    "You look positions up by the token's id. A position vector says where the token stands, not "
    "which one it is: use 0, 1, 2 … up to the length."
)
def positions_by_id(input_ids, token_type_ids, words, positions, types, norm):
    return norm(words[input_ids] + positions[input_ids] + types[token_type_ids])


@embed.mistake("Every token gets the vector of position 0. Give each place a vector of its own.")
def one_position_for_all(input_ids, token_type_ids, words, positions, types, norm):
    return norm(words[input_ids] + positions[0] + types[token_type_ids])


@embed.mistake("Your positions begin at 1. In BERT the first token, [CLS], stands at position 0.")
def positions_from_one(input_ids, token_type_ids, words, positions, types, norm):
    places = positions[1 : input_ids.shape[1] + 1]
    return norm(words[input_ids] + places + types[token_type_ids])


@embed.mistake(
    "The segments are missing: the third vector of the sum, looked up by `token_type_ids`. It "
    "matters even for one text, because row 0 of `types` is not zero."
)
def without_types(input_ids, token_type_ids, words, positions, types, norm):
    return norm(words[input_ids] + positions[: input_ids.shape[1]])


@embed.mistake(
    "You give every token the vector of segment 0. Tokens of a second text have type 1: look up "
    "`types[token_type_ids]`."
)
def one_type_for_all(input_ids, token_type_ids, words, positions, types, norm):
    return norm(words[input_ids] + positions[: input_ids.shape[1]] + types[0])


# --- Masked language modelling: the 80/10/10 rule ---

MASK = 103  # [MASK] in the vocabulary of bert-base-uncased


def _texts() -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
    """Ids (B, S), and chance made visible: a first case by hand, then many tokens."""
    yield (
        torch.tensor([[101, 2034, 3231, 2062, 4248, 102]]),
        torch.tensor([[True, False, False, False, False, True]]),
        torch.tensor([[0.01, 0.05, 0.10, 0.14, 0.50, 0.02]]),
        torch.tensor([[0.30, 0.40, 0.85, 0.95, 0.20, 0.88]]),
        torch.tensor([[7001, 7002, 7003, 7004, 7005, 7006]]),
    )
    generator = torch.Generator().manual_seed(0)
    for shape in ((4, 30), (8, 64)):
        input_ids = torch.randint(1000, 9000, shape, generator=generator)
        lengths = torch.randint(shape[1] // 2, shape[1] + 1, shape[:1], generator=generator)
        places = torch.arange(shape[1])
        input_ids[:, 0] = 101
        input_ids[places == lengths[:, None] - 1] = 102
        input_ids[places >= lengths[:, None]] = 0
        chance, fate = (torch.rand(shape, generator=generator) for _ in range(2))
        random_ids = torch.randint(1000, 9000, shape, generator=generator)
        yield input_ids, input_ids < 1000, chance, fate, random_ids


@exercise(
    cases=_texts,
    hints=(
        "Work with boolean masks of the shape (B, S). The first one, `chosen`, is true where "
        "chance is below 0.15 and the token is not special. Everything else happens inside it.",
        "Labels are `input_ids` where chosen and -100 elsewhere. The new ids start as "
        "`input_ids`; of the chosen, those with fate below 0.8 become 103.",
        "`torch.where(condition, new, old)` makes a new tensor without touching the old one. "
        "Three of them do it: one for the labels, one for [MASK], one for the random ids (chosen, "
        "and fate from 0.8 up to 0.9).",
    ),
)
def mask_words(
    input_ids: Tensor, is_special: Tensor, chance: Tensor, fate: Tensor, random_ids: Tensor
) -> tuple[Tensor, Tensor]:
    """New ids and labels, both (B, S), by BERT's 80/10/10 rule (Devlin et al. 2019, section 3.1).

    All five arguments are (B, S). A token is chosen when its `chance` is below 0.15 and it is not
    special. By `fate` a chosen token becomes [MASK], 103 (below 0.8), becomes its `random_ids`
    (from 0.8 up to 0.9) or stays (0.9 and above). Labels are the old ids of the chosen tokens,
    -100 elsewhere.
    """
    chosen = (chance < 0.15) & ~is_special
    labels = torch.where(chosen, input_ids, -100)
    return _hidden(chosen, input_ids, fate, random_ids), labels


def _hidden(chosen: Tensor, input_ids: Tensor, fate: Tensor, random_ids: Tensor) -> Tensor:
    """Ids in which the chosen tokens met their fate."""
    ids = torch.where(chosen & (fate < 0.9), random_ids, input_ids)
    return torch.where(chosen & (fate < 0.8), MASK, ids)


@mask_words.mistake(
    "You hide special tokens, too: [CLS], [SEP] or padding. There is nothing to learn from "
    "guessing them. Choose only where `is_special` is False."
)
def masks_special_tokens(input_ids, is_special, chance, fate, random_ids):
    chosen = chance < 0.15
    return _hidden(chosen, input_ids, fate, random_ids), torch.where(chosen, input_ids, -100)


@mask_words.mistake(
    "You keep a label at every token. Then most of the loss rewards copying words that the model "
    "can see. Where a token was not chosen the label is -100, which the loss leaves out."
)
def labels_everywhere(input_ids, is_special, chance, fate, random_ids):
    return mask_words.reference(input_ids, is_special, chance, fate, random_ids)[0], input_ids


@mask_words.mistake(
    "You give a label only to tokens that became [MASK]. The random and the unchanged tokens are "
    "chosen as well, and the model must say what stood there: all chosen tokens have a label."
)
def labels_at_mask_only(input_ids, is_special, chance, fate, random_ids):
    ids, _ = mask_words.reference(input_ids, is_special, chance, fate, random_ids)
    return ids, torch.where(ids == MASK, input_ids, -100)


@mask_words.mistake(
    "The label of tokens that were not chosen is 0. That is the id of [PAD], a word like any "
    "other for the loss. -100 is the label that it leaves out."
)
def zero_for_no_label(input_ids, is_special, chance, fate, random_ids):
    chosen = (chance < 0.15) & ~is_special
    return _hidden(chosen, input_ids, fate, random_ids), torch.where(chosen, input_ids, 0)


@mask_words.mistake(
    "Your labels are taken from the ids after hiding, so they say [MASK] where the answer should "
    "stand. Take them from the old ids; if you change ids in place, work on `input_ids.clone()`."
)
def labels_after_hiding(input_ids, is_special, chance, fate, random_ids):
    ids, labels = mask_words.reference(input_ids, is_special, chance, fate, random_ids)
    return ids, torch.where(labels == -100, -100, ids)


@mask_words.mistake(
    "Every chosen token becomes [MASK]. A model trained so would expect a [MASK] wherever it has "
    "to think, and in use there is none: by `fate`, one tenth becomes a random id and one tenth "
    "stays."
)
def always_mask(input_ids, is_special, chance, fate, random_ids):
    chosen = (chance < 0.15) & ~is_special
    return torch.where(chosen, MASK, input_ids), torch.where(chosen, input_ids, -100)


@mask_words.mistake(
    "You apply 80/10/10 to all tokens, not to the chosen ones, and so hide almost the whole text. "
    "`fate` counts only where a token was chosen."
)
def all_tokens_meet_their_fate(input_ids, is_special, chance, fate, random_ids):
    labels = mask_words.reference(input_ids, is_special, chance, fate, random_ids)[1]
    return _hidden(~is_special, input_ids, fate, random_ids), labels


@mask_words.mistake(
    "You choose the 85 % and leave the 15 %: a token is chosen when its chance is below 0.15."
)
def chooses_the_others(input_ids, is_special, chance, fate, random_ids):
    chosen = (chance >= 0.15) & ~is_special
    return _hidden(chosen, input_ids, fate, random_ids), torch.where(chosen, input_ids, -100)


@mask_words.mistake(
    "No token ever becomes a random one: after fate < 0.8 was taken for [MASK], fate < 0.1 is "
    "never reached. The random tenth is the band from 0.8 up to 0.9."
)
def never_random(input_ids, is_special, chance, fate, random_ids):
    chosen = (chance < 0.15) & ~is_special
    ids = torch.where(chosen & (fate < 0.8), MASK, input_ids)
    return ids, torch.where(chosen, input_ids, -100)


@mask_words.mistake(
    "Your shares are right, but you keep the token for fate from 0.8 up to 0.9 and draw a random "
    "one above. The task has it the other way round."
)
def bands_swapped(input_ids, is_special, chance, fate, random_ids):
    chosen = (chance < 0.15) & ~is_special
    ids = torch.where(chosen & (fate >= 0.9), random_ids, input_ids)
    ids = torch.where(chosen & (fate < 0.8), MASK, ids)
    return ids, torch.where(chosen, input_ids, -100)


# --- The head that guesses words, tied to the embeddings ---


def _transform(hidden: Tensor) -> Tensor:
    """A stand-in for the head's linear map, GELU and LayerNorm."""
    return F.layer_norm(F.gelu(hidden.flip(-1) + 0.5), hidden.shape[-1:])


def _heads() -> Iterator[tuple[Tensor, Callable, Tensor, Tensor]]:
    """Hidden states, a table and biases; in the second case V = H, so that shapes hide nothing."""
    generator = torch.Generator().manual_seed(0)
    for *shape, n_words in ((1, 2, 3, 5), (2, 3, 4, 4), (2, 4, 6, 9)):
        hidden = torch.randn(shape, generator=generator)
        word_embeddings = torch.randn(n_words, shape[-1], generator=generator)
        bias = torch.randn(n_words, generator=generator)
        yield hidden, _transform, word_embeddings.requires_grad_(), bias.requires_grad_()


@exercise(
    cases=_heads,
    hints=(
        "For each position the head asks: which word's embedding looks most like me? That is a "
        "dot product of the transformed hidden state with every row of the table.",
        "(B, S, H) times (H, V) gives (B, S, V): the table (V, H) has to be transposed.",
        "Three steps: h = transform(hidden); h @ word_embeddings.T; + bias. No softmax: logits.",
    ),
)
def tied_logits(
    hidden: Tensor, transform: Callable[[Tensor], Tensor], word_embeddings: Tensor, bias: Tensor
) -> Tensor:
    """The head's logits (B, S, V): transform(h) · Eᵀ + b, with E the word embeddings themselves.

    `hidden` is (B, S, H), `word_embeddings` (V, H), `bias` (V,). `transform` is the linear map,
    GELU and LayerNorm in front, a function of a (B, S, H) tensor.
    """
    return transform(hidden) @ word_embeddings.T + bias


@tied_logits.mistake(
    "The decoder's bias is forgotten: one number per word, the same at every position. It holds "
    "how frequent a word is, so that its embedding need not."
)
def without_bias(hidden, transform, word_embeddings, bias):
    return transform(hidden) @ word_embeddings.T


@tied_logits.mistake(
    "You skip the transform. The last hidden state is made for other uses, too; the linear map, "
    "GELU and LayerNorm turn it towards the words: call transform(hidden) first."
)
def without_transform(hidden, transform, word_embeddings, bias):
    return hidden @ word_embeddings.T + bias


@tied_logits.mistake(
    "The table is not transposed. Its rows are words, (V, H); the product needs (H, V). Where V "
    "and H differ you see an error; where they agree the numbers are wrong in silence."
)
def not_transposed(hidden, transform, word_embeddings, bias):
    return transform(hidden) @ word_embeddings + bias


@tied_logits.mistake(
    "You cut the gradient (by .detach(), .data or torch.no_grad()). Tied means that the table is "
    "one parameter with two uses: it learns from the head as well."
)
def cuts_the_gradient(hidden, transform, word_embeddings, bias):
    return (transform(hidden) @ word_embeddings.T + bias).detach()


@tied_logits.mistake(
    "You return probabilities. The loss takes logits and does the softmax itself; after a second "
    "softmax it hardly learns any more."
)
def returns_probabilities(hidden, transform, word_embeddings, bias):
    return (transform(hidden) @ word_embeddings.T + bias).softmax(-1)


@tied_logits.mistake(
    "You divide by √H, as attention does with its scores. The head has no such factor: the "
    "transform ends in a LayerNorm, which sets the scale."
)
def divides_by_root_h(hidden, transform, word_embeddings, bias):
    return transform(hidden) @ word_embeddings.T / hidden.shape[-1] ** 0.5 + bias


@tied_logits.mistake(
    "You transform the word embeddings as well. Tied means: the table as it is, the very vectors "
    "that the model reads with."
)
def transforms_both(hidden, transform, word_embeddings, bias):
    return transform(hidden) @ transform(word_embeddings).T + bias


# --- How many parameters has a BERT? ---

Sizes = tuple[int, int, int, int, int, int, int]


def _sizes() -> Iterator[Sizes]:
    """Words, positions, types, layers, hidden size, heads, intermediate size."""
    yield 7, 5, 3, 2, 4, 2, 6
    yield 30_522, 512, 2, 6, 384, 12, 1_536  # MiniLM
    yield 30_522, 512, 2, 12, 768, 12, 3_072  # BERT-base
    yield 1_000, 128, 1, 3, 64, 4, 100


@exercise(
    cases=_sizes,
    tolerance=1e-9,
    hints=(
        "Three groups: embeddings (three tables and a LayerNorm), one layer times the number of "
        "layers, and the pooler. A linear map from m to n has m·n weights and n biases; a "
        "LayerNorm has a scale and a shift.",
        "One layer holds four maps from H to H (query, key, value, output), one from H to I, one "
        "from I to H, and two LayerNorms.",
        "The heads share the H numbers among themselves: n_heads does not appear in the formula. "
        "The pooler is one more map from H to H.",
    ),
)
def count_parameters(
    n_words: int,
    n_positions: int,
    n_types: int,
    n_layers: int,
    hidden_size: int,
    n_heads: int,
    intermediate_size: int,
) -> int:
    """How many parameters BERT has without a head on top: embeddings, layers and pooler."""
    return _count(n_words, n_positions, n_types, n_layers, hidden_size, intermediate_size)


def _count(
    words: int,
    positions: int,
    types: int,
    layers: int,
    hidden: int,
    intermediate: int,
    *,
    maps: int = 4,
    biases: bool = True,
    norms: int = 2,
    embedding_norm: bool = True,
    pooler: bool = True,
) -> int:
    """The formula, with parts that a mistake leaves out or counts too often."""

    def linear(m: int, n: int) -> int:
        return m * n + n * biases

    norm = 2 * hidden
    layer = maps * linear(hidden, hidden) + norms * norm
    layer += linear(hidden, intermediate) + linear(intermediate, hidden)
    embeddings = (words + positions + types) * hidden + norm * embedding_norm
    return embeddings + layers * layer + linear(hidden, hidden) * pooler


@count_parameters.mistake(
    "The biases are forgotten. A linear map from m to n has m·n weights and n biases, one per "
    "output."
)
def without_biases(words, positions, types, layers, hidden, heads, intermediate):
    return _count(words, positions, types, layers, hidden, intermediate, biases=False)


@count_parameters.mistake(
    "The LayerNorms are forgotten: a scale and a shift of H numbers each, once after the "
    "embeddings and twice per layer."
)
def without_norms(words, positions, types, layers, hidden, heads, intermediate):
    sizes = (words, positions, types, layers, hidden, intermediate)
    return _count(*sizes, norms=0, embedding_norm=False)


@count_parameters.mistake(
    "The LayerNorm after the embeddings is forgotten: 2·H, before the first layer begins."
)
def without_embedding_norm(words, positions, types, layers, hidden, heads, intermediate):
    return _count(words, positions, types, layers, hidden, intermediate, embedding_norm=False)


@count_parameters.mistake(
    "You count one LayerNorm per layer. There are two: after attention and after the feed-forward."
)
def one_norm_per_layer(words, positions, types, layers, hidden, heads, intermediate):
    return _count(words, positions, types, layers, hidden, intermediate, norms=1)


@count_parameters.mistake(
    "You count the attention's maps once per head. The heads divide the H numbers among "
    "themselves: H × H in all, however many heads there are."
)
def heads_multiply(words, positions, types, layers, hidden, heads, intermediate):
    return _count(words, positions, types, layers, hidden, intermediate, maps=4 * heads)


@count_parameters.mistake(
    "Attention has four maps, not three: after query, key and value comes the output projection."
)
def without_output_projection(words, positions, types, layers, hidden, heads, intermediate):
    return _count(words, positions, types, layers, hidden, intermediate, maps=3)


@count_parameters.mistake(
    "You count the word embeddings twice, a second time as a decoder. The decoder of a "
    "masked-language head is tied: the same table. And this BERT has no head."
)
def decoder_counted_again(words, positions, types, layers, hidden, heads, intermediate):
    total = _count(words, positions, types, layers, hidden, intermediate)
    return total + words * hidden


@count_parameters.mistake(
    "The pooler is forgotten: one more linear map from H to H, applied to the first token."
)
def without_pooler(words, positions, types, layers, hidden, heads, intermediate):
    return _count(words, positions, types, layers, hidden, intermediate, pooler=False)


@count_parameters.mistake(
    "The positions are forgotten. BERT learns them: a table of P vectors of size H."
)
def without_positions(words, positions, types, layers, hidden, heads, intermediate):
    return _count(words, 0, types, layers, hidden, intermediate)


@count_parameters.mistake(
    "The segments are forgotten: a small third table, one vector of size H per type."
)
def without_segments(words, positions, types, layers, hidden, heads, intermediate):
    return _count(words, positions, 0, layers, hidden, intermediate)


@count_parameters.mistake("You count bytes, four for each parameter in float32. Leave them out.")
def counts_bytes(words, positions, types, layers, hidden, heads, intermediate):
    return 4 * _count(words, positions, types, layers, hidden, intermediate)


# --- One vector for a text ---


def _batches() -> Iterator[tuple[Tensor, Tensor]]:
    """Hidden states (B, S, H) with padding that is not zero, and masks (B, S)."""
    generator = torch.Generator().manual_seed(0)
    for lengths, size in (((2, 3), 2), ((3, 5, 1, 4), 5), ((6, 4, 2), 7)):
        length = max(lengths)
        hidden = torch.randn(len(lengths), length, size, generator=generator)
        yield hidden, (torch.arange(length) < torch.tensor(lengths)[:, None]).long()


@exercise(
    cases=_batches,
    hints=(
        "Padding has hidden states as well, and they mean nothing. Make them zero first, so that "
        "a sum leaves them out; then divide by the number of real tokens.",
        "`attention_mask[:, :, None]` is (B, S, 1) and broadcasts over the H numbers of a token.",
        "Numerator: (hidden * mask).sum(1), (B, H). Denominator: mask.sum(1), (B, 1): each text "
        "has its own number of tokens.",
    ),
)
def mean_pool(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """One vector per text, (B, H): the mean of the hidden states of its tokens, without padding.

    `hidden` is (B, S, H), `attention_mask` (B, S) with 1 for tokens and 0 for padding.
    """
    mask = attention_mask[:, :, None].to(hidden.dtype)  # (B, S, 1)
    return (hidden * mask).sum(1) / mask.sum(1)


@mean_pool.mistake(
    "Padding is in your mean: the mask is not used at all. The vector of a text would then depend "
    "on how long its neighbours in the batch are."
)
def padding_in_the_mean(hidden, attention_mask):
    return hidden.mean(1)


@mean_pool.mistake(
    "Padding is out of the sum but still in the divisor: you divide by the length of the batch. "
    "Divide by each text's own number of tokens, attention_mask.sum(1)."
)
def divides_by_the_length(hidden, attention_mask):
    return (hidden * attention_mask[:, :, None]).mean(1)


@mean_pool.mistake(
    "You divide every text by the number of tokens in the whole batch. Each text has its own: "
    "attention_mask.sum(1), not .sum()."
)
def divides_by_all_tokens(hidden, attention_mask):
    return (hidden * attention_mask[:, :, None]).sum(1) / attention_mask.sum()


@mean_pool.mistake(
    "Padding is still in your sum; only the divisor leaves it out. Multiply the hidden states by "
    "the mask before you add them."
)
def padding_in_the_sum(hidden, attention_mask):
    return hidden.sum(1) / attention_mask.sum(1, keepdim=True)


@mean_pool.mistake(
    "You take the first token, [CLS]. That is the other way to get one vector, the one that "
    "BERT's pooler uses; here the mean over all tokens is asked for."
)
def takes_cls(hidden, attention_mask):
    return hidden[:, 0]


@mean_pool.mistake("You return the sum. Divide it by the number of tokens of each text.")
def only_the_sum(hidden, attention_mask):
    return (hidden * attention_mask[:, :, None]).sum(1)


@mean_pool.mistake(
    "You average over the hidden size, the last axis, and get one number per token. Average over "
    "the tokens, axis 1, to get one vector per text."
)
def over_the_wrong_axis(hidden, attention_mask):
    return (hidden * attention_mask[:, :, None]).mean(-1)


@mean_pool.mistake(
    "You take the largest value of each number over the tokens: max pooling, which some models "
    "use. Here the mean is asked for."
)
def takes_the_maximum(hidden, attention_mask):
    return hidden.masked_fill(attention_mask[:, :, None] == 0, -torch.inf).amax(1)
