# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 01 · Transformer basics: an encoder from an empty cell
#
# > **About 90 minutes**, an hour of it for the exercises. Your computer works for about
# > one. You should be able to read Python and know what a tensor's shape is; a network is not needed.
#
# When you reach the end of this page you will have
#
# - computed attention by hand, on three words with three numbers each,
# - written masks, attention, heads, LayerNorm and a block yourself, each checked on the spot,
# - seen that they equal PyTorch's own to five decimals, gradients included,
# - measured what grows with the length of a text, and what grows with its square,
# - trained an encoder in seconds on a puzzle that one layer cannot solve, and watched where it looks.
#
# The steps are small on purpose. Each comes three times: by hand, as a function, beside the library.

# %% tags=["setup"]
import warnings

warnings.filterwarnings("ignore")

import itertools
import math
import time

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn

from course_utils import machine
from course_utils.classroom import check, claim, show_source
from course_utils.classroom import transformer_figures as figures
from course_utils.classroom.attention_view import attention_figure, attention_grid, attention_viewer
from course_utils.classroom.hand import legend, near
from course_utils.classroom.plots import show, use_style
from course_utils.classroom.quiz import quiz
from course_utils.data.puzzles import TOKENS, recall_puzzles, spelled, where_stored
from course_utils.data.sources import find_model
from course_utils.measure.memory import kept_for_backward
from course_utils.models import attention as library
from course_utils.models import encoder as blocks
from course_utils.models.reader import Reader

machine.use_all_cores()
use_style()

# %% [markdown]
# ## Words become vectors
#
# A model does not read words. A [*tokenizer*](../docs/glossary.md#tokenizer) cuts a text into [*tokens*](../docs/glossary.md#token), each token has a number, its
# *id*, and each id is a row of a table of vectors, the [*embeddings*](../docs/glossary.md#embedding). A real table has thirty thousand
# rows of 768 numbers, which training has found. Ours has five rows of three numbers, and we made them
# up so that they can be read: how much water, how much money, how much grammar is in a word.

# %%
VOCABULARY = ["[PAD]", "the", "river", "bank", "loan"]
FEATURES = ["water", "money", "grammar"]
embeddings = torch.tensor([[1, 1, 1], [0, 0, 1], [2, 0, 0], [1, 1, 0], [0, 2, 0]]).float()
legend(embeddings, VOCABULARY, FEATURES)

# %% tags=["slide-words"]
tokens = ["the", "river", "bank"]
ids = torch.tensor([VOCABULARY.index(token) for token in tokens])
x = embeddings[ids]  # (S, H): one row per token
print("ids:", ids.tolist())
legend(x, tokens, FEATURES)

# %% [markdown]
# *Bank* has a bit of water and a bit of money, since the table cannot know which bank is meant. The
# other words can tell. So a word has to look around.
#
# ## To look is to average
#
# **Which words matter to me?** The [*dot product*](../docs/glossary.md#dot-product) of two vectors multiplies number by number and adds
# up. It is large when both are large in the same places. One matrix product gives all pairs at once.

# %%
similarity = x @ x.T  # (S, S)
legend(similarity, tokens, tokens)

# %% [markdown]
# Check one by hand: *river* and *bank* share water, 2 · 1, and nothing else, so 2.
#
# **How much of each do I take?** The *softmax* turns a row of scores into weights that are positive
# and add up to 1. Then every word takes the average of all words, with its own weights.

# %%
weights = similarity.softmax(dim=-1)
legend(weights, tokens, tokens)

# %%
legend(weights @ x, tokens, FEATURES)

# %% [markdown]
# *Bank* has moved towards water. In other company it moves elsewhere:


# %%
def look_around(text):
    words = text.split()
    vectors = embeddings[[VOCABULARY.index(word) for word in words]]
    averages = (vectors @ vectors.T).softmax(dim=-1) @ vectors
    return dict(zip(words, averages.tolist()))


seen = {text: look_around(text)["bank"] for text in ("the river bank", "the bank loan")}
for text, vector in seen.items():
    print(f"{text:>16}: bank is now", [round(number, 2) for number in vector])

# %% tags=["slide-meaning"]
places = {word: embeddings[VOCABULARY.index(word), :2].tolist() for word in VOCABULARY[2:]}
show(
    figures.meaning_figure("bank", places, {text: vector[:2] for text, vector in seen.items()}),
    alt="A plane of water against money. “bank” starts in the middle. After looking around, it moves "
    "towards “river” in the text “the river bank”, and towards “loan” in “the bank loan”.",
)

# %%
water, money, _ = seen["the river bank"]
claim("by the river, bank is more water than money", water > money)
claim("beside a loan, more money than water", seen["the bank loan"][0] < seen["the bank loan"][1])

# %% [markdown]
# That is the whole idea of [*attention*](../docs/glossary.md#attention): **a vector that depends on the words around it, as an average with
# weights that the words themselves decide.**
#
# ## Three views of a word
#
# So far similarity decides everything. It is symmetric, and a word is mostly similar to itself. But a
# word may need something unlike itself: an article needs its noun, and the noun can do without the
# article. So each vector is looked at in three ways, by three matrices that training will find:
#
# - the [**query**](../docs/glossary.md#query-key-value): what am I looking for?
# - the **key**: what do I have to offer to those who look?
# - the **value**: what do I pass on to them?
#
# We write three matrices by hand. Articles ask for content (two units of it, first column); nouns
# offer content, and avoid grammar (second column); water and money are passed on, grammar is not.

# %%
W_query = torch.tensor([[0, 1], [0, 1], [2, 0]]).float()  # (H, d)
W_key = torch.tensor([[1, 0], [1, 0], [0, -1]]).float()
W_value = torch.tensor([[1, 0], [0, 1], [0, 0]]).float()
query, key, value = x @ W_query, x @ W_key, x @ W_value  # (S, d) each
legend(torch.cat([query, key, value], dim=1), tokens, ["query", "", "key", "", "value", ""])

# %%
scores = query @ key.T / math.sqrt(2)  # (S, S); the next section says why the root
weights = scores.softmax(dim=-1)
legend(weights, tokens, tokens)

# %%
legend(weights @ value, tokens, FEATURES[:2])
claim("who looks at whom is no longer symmetric", not near(weights, weights.T))

# %% [markdown]
# *The* looks at the two nouns, and they hardly look back. It now carries what it stands in front of.
# In formulas, with one row per token:
#
# $$\text{attention}(Q, K, V) = \text{softmax}\!\left(\frac{Q K^\top}{\sqrt{d}}\right) V$$
#
# ## Why √d?
#
# A score is a sum of *d* products. If the numbers in queries and keys have variance 1, each product has
# variance 1, and the sum has variance *d*. Is that bad? We measure it: random queries that choose
# among 16 random keys, for *d* from 4 to 1024.

# %%
generator = torch.Generator().manual_seed(0)
sizes = [4, 16, 64, 256, 1024]
variance, largest, slope = [], [], []
for d in sizes:
    q = torch.randn(1000, 1, d, generator=generator)
    k = torch.randn(1000, 16, d, generator=generator)
    scores = (q @ k.mT)[:, 0]  # (1000, 16): the scores of 1000 queries
    both = torch.stack([scores, scores / math.sqrt(d)])  # as they are, and divided
    w = both.softmax(dim=-1)
    variance.append(both.var(dim=(1, 2)).tolist())
    largest.append(w.amax(-1).mean(1).tolist())
    slope.append((w * (1 - w)).sum(-1).mean(1).tolist())

# %% [markdown]
# `slope` adds up *w* (1 − *w*), the derivative of each weight with respect to its own score. It says
# how much a small change of the scores can still change the weights, and so how much gradient passes.

# %% tags=["slide-saturation"]
measured = {
    "variance of the scores": variance,
    "largest of 16 weights": largest,
    "slope of the weights": slope,
}
show(
    figures.saturation_figure(sizes, measured),
    alt="Three line charts against d. Without scaling, the variance of the scores grows like d, the "
    "largest of 16 weights goes to 1, and the slope goes to 0. Divided by the root of d, all three "
    "stay where they are.",
)

# %%
ratios = [v / d for (v, _), d in zip(variance, sizes)]
claim("the variance is d, within a tenth", min(ratios) > 0.9 and max(ratios) < 1.1)
claim("at d = 1024, one of 16 keys takes more than nine tenths", largest[-1][0] > 0.9)
claim("and more than nine tenths of the slope are gone", slope[-1][0] < 0.1 * slope[-1][1])

# %% [markdown]
# Without the root, a model with large heads is *saturated* before it has learned anything: every token
# looks at one other, chosen by chance, and no gradient says that it should look elsewhere.
#
# ## Masks: who may look where
#
# Texts in a batch have different lengths. The short ones are filled up with `[PAD]`, and nobody
# should look there. A model that predicts the next word must not look to the right. Both are said
# by a [*mask*](../docs/glossary.md#mask): `True` where a row may look at a column. Where it may not, the score becomes −∞ before
# the softmax, and the weight 0.

# %%
batch = [["the", "river", "bank"], ["the", "loan", "[PAD]"]]
attention_mask = torch.tensor([[1, 1, 1], [1, 1, 0]])  # as tokenizers return it
padding = library.padding_mask(attention_mask)  # (B, 1, 1, S): the same for all heads and rows
causal = library.causal_mask(3)  # (S, S)
print(padding.int()[1, 0], causal.int(), sep="\n")

# %% tags=["slide-masks"]
some = torch.randn(3, 4, generator=torch.Generator().manual_seed(3))
masks = {
    "everybody sees all": torch.ones(3, 3).bool(),
    "no padding": padding[1, 0],
    "not to the right": causal,
}
seen = {
    name: library.scaled_dot_product(some, some, some, mask=mask)[1] for name, mask in masks.items()
}
fig = attention_grid("What does a mask do to the weights?", seen, batch[1], columns=3)
show(
    fig,
    alt="Three maps of attention weights of “the loan [PAD]”: without a mask, with the column of the "
    "padding at zero, and with everything right of the diagonal at zero. Each row adds up to 1 in all "
    "of them.",
)

# %% [markdown]
# Every row still adds up to 1: the softmax shares out among those that are left. And if none is left?

# %%
print(torch.tensor([-math.inf, -math.inf, -math.inf]).softmax(dim=0))

# %% [markdown]
# 0/0. One such row, of an empty text in a batch, turns the loss and every weight of the model into NaN.
# The course's function returns zeros there, and a gradient that is finite.

# %%
q = torch.randn(2, 3, 4, generator=generator, requires_grad=True)
nowhere = torch.zeros(3, 3, dtype=torch.bool)
context, weights = library.scaled_dot_product(q, q, q, mask=nowhere)
context.sum().backward()
claim("who may look nowhere sees zeros", not context.any() and not weights.any())
claim("and leaves the gradient finite", bool(q.grad.isfinite().all()))

# %% [markdown]
# ### Exercise: a mask for both
#
# > Difficulty: easy · about 6 minutes
#
# Combine the two: `True` where a token may look, at no padding and not to its right. You are given the
# `attention_mask` (B, S) of a batch. Return a mask (B, 1, S, S), ready for any number of heads.


# %% tags=["slide-may-look"]
def may_look(attention_mask):
    # solution
    length = attention_mask.shape[1]
    causal = torch.ones(length, length).tril().bool()
    return attention_mask.bool()[:, None, None, :] & causal


# %%
check.may_look(may_look)


# %% tags=["solution"]
def may_look_answer(attention_mask):
    return library.padding_mask(attention_mask) & library.causal_mask(attention_mask.shape[1])


check.may_look(may_look_answer)

# %% [markdown]
# The check says that there is nothing to check yet, or that it is right, or that it is wrong **and
# why**: it knows the usual mistakes. `check.may_look.hint(1)` gives a first hint; there are three.
#
# ### Exercise: attention
#
# > Difficulty: medium · about 15 minutes
#
# Write the formula with a mask. It should work whatever stands before the last two axes: nothing, texts,
# texts and heads. Return the context only. A query that may look nowhere gets zeros.


# %%
def attention(query, key, value, mask):
    # solution
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    weights = scores.masked_fill(~mask, -math.inf).softmax(dim=-1)
    return weights.masked_fill(~mask, 0.0) @ value


# %%
check.attention(attention)


# %% tags=["solution"]
def attention_answer(query, key, value, mask):
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])  # (..., Sq, Sk)
    weights = scores.masked_fill(~mask, -math.inf).softmax(dim=-1)
    weights = weights.masked_fill(~mask, 0.0)  # a row that was hidden as a whole was NaN
    return weights @ value


check.attention(attention_answer)

# %% [markdown]
# The library's version returns the weights as well, because we want to look at them. Most of its lines
# are what you wrote.

# %%
show_source(library.scaled_dot_product)

# %% [markdown]
# PyTorch has the same function, written for speed. Are they equal, forward and backward?

# %%
q, k, v = (torch.randn(2, 4, 5, 8, generator=generator, requires_grad=True) for _ in range(3))
mask = library.padding_mask(torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]))
ours, _ = library.scaled_dot_product(q, k, v, mask=mask)
theirs = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
pairs = zip(*(torch.autograd.grad(out.square().sum(), (q, k, v)) for out in (ours, theirs)))
claim("equal to F.scaled_dot_product_attention, forward", near(ours, theirs))
claim("and backward", all(near(*pair) for pair in pairs))

# %% [markdown]
# ## Many heads are one reshape
#
# One average per word is little: a word may want its article *and* its verb. So the work is split
# among [*heads*](../docs/glossary.md#attention-head). Each head gets a piece of the query, the key and the value, attends on its own, and
# the pieces are put side by side again. No loop is needed: a reshape and a transpose make an axis of
# the heads, and all products run along it. Here are two tokens with six numbers; three heads of two.

# %% tags=["slide-heads"]
hidden = torch.tensor(
    [[[11, 12, 13, 14, 15, 16], [21, 22, 23, 24, 25, 26]]]
)  # (B, S, H) = (1, 2, 6)
cut = hidden.view(1, 2, 3, 2)  # (B, S, A, d): every row cut into three pieces
heads = cut.transpose(1, 2)  # (B, A, S, d)
for a in range(3):
    print(f"head {a}:", heads[0, a].tolist())

# %% [markdown]
# Head 1 has the third and fourth number of *both* tokens. `view(1, 3, 2, 2)` gives the right shape as
# well, in one step and without a transpose. Look what it does:

# %% tags=["slide-heads-bug"]
print("head 1 of the bug:", hidden.view(1, 3, 2, 2)[0, 1].tolist())

# %% [markdown]
# Numbers of two tokens in one row, and nothing complains. A check by shape would not find it.
#
# ### Exercise: there and back
#
# > Difficulty: medium · about 10 minutes
#
# Write both directions: (B, S, H) to (B, A, S, d), and back. B is texts, S tokens, H the numbers of each,
# A = `n_heads` heads of d = H / A numbers.


# %% tags=["slide-split-heads"]
def split_heads(hidden, n_heads):
    # solution
    texts, length, size = hidden.shape
    return hidden.view(texts, length, n_heads, size // n_heads).transpose(1, 2)


# %%
check.split_heads(split_heads)


# %%
def merge_heads(heads):
    # solution
    return heads.transpose(1, 2).flatten(2)


# %%
check.merge_heads(merge_heads)


# %% tags=["solution"]
def split_heads_answer(hidden, n_heads):
    texts, length, size = hidden.shape
    return hidden.view(texts, length, n_heads, size // n_heads).transpose(1, 2)


def merge_heads_answer(heads):
    return heads.transpose(1, 2).flatten(2)  # (B, S, A, d), then A and d become one axis


check.split_heads(split_heads_answer)
check.merge_heads(merge_heads_answer)

# %% [markdown]
# With these two, [*multi-head attention*](../docs/glossary.md#multi-head-attention) is four linear maps: three make queries, keys and values, and
# one mixes what the heads have found.

# %%
show_source(library.MultiHeadAttention)


# %% [markdown]
# PyTorch's module keeps the three matrices in one piece. We copy our weights into it. Mind the masks:
# for `nn.MultiheadAttention`, `True` means *may not* look.


# %%
def copy_attention(ours, theirs):
    with torch.no_grad():
        for kind in ("weight", "bias"):
            three = torch.cat([getattr(part, kind) for part in (ours.query, ours.key, ours.value)])
            getattr(theirs, f"in_proj_{kind}").copy_(three)
            getattr(theirs.out_proj, kind).copy_(getattr(ours.output, kind))


torch.manual_seed(0)
ours, theirs = library.MultiHeadAttention(16, 4), nn.MultiheadAttention(16, 4, batch_first=True)
copy_attention(ours, theirs)

# %%
hidden = torch.randn(2, 5, 16, requires_grad=True)
is_padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
mine, my_weights = ours(hidden, mask=library.padding_mask(~is_padding))
other, other_weights = theirs(
    hidden, hidden, hidden, key_padding_mask=is_padding, average_attn_weights=False
)
slopes = [torch.autograd.grad(out.square().sum(), hidden)[0] for out in (mine, other)]
claim("equal to nn.MultiheadAttention", near(mine, other) and near(my_weights, other_weights))
claim("and so are the gradients", near(*slopes))

# %% [markdown]
# ## The stream and its norms
#
# A block does not replace a token's vector. It computes a *change* and adds it: `hidden + change`. The
# vectors run through all layers like a stream, and every part reads from it and adds to it. This
# [*residual connection*](../docs/glossary.md#residual-connection) also gives the gradient a way back past every part.
#
# What is added again and again grows. A [**LayerNorm**](../docs/glossary.md#layernorm) brings each vector back to mean 0 and variance 1,
# and then scales and shifts it by two vectors that are learned. It treats every token by itself. The
# variance is divided by H, not by H − 1, and a tiny ε goes *inside* the root:
#
# $$\text{norm}(h) = \frac{h - \text{mean}(h)}{\sqrt{\text{var}(h) + \varepsilon}} \cdot w + b$$

# %%
h = torch.tensor([1.0, 2.0, 6.0])  # mean 3; variance (4 + 1 + 9) / 3
by_hand = (h - 3) / math.sqrt(14 / 3)
print([round(number, 3) for number in by_hand.tolist()])
claim("equal to F.layer_norm", near(by_hand, F.layer_norm(h, (3,))))

# %% [markdown]
# ### Exercise: LayerNorm
#
# > Difficulty: easy · about 8 minutes
#
# `hidden` is (B, S, H), `weight` and `bias` are (H,). (PyTorch's `var` and `std` have an opinion of their
# own on H − 1.)


# %%
def layer_norm(hidden, weight, bias, eps):
    # solution
    mean = hidden.mean(-1, keepdim=True)
    variance = hidden.var(-1, keepdim=True, correction=0)
    return (hidden - mean) / (variance + eps).sqrt() * weight + bias


# %%
check.layer_norm(layer_norm)


# %% tags=["solution"]
def layer_norm_answer(hidden, weight, bias, eps):
    centred = hidden - hidden.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)  # divided by H
    return centred / (variance + eps).sqrt() * weight + bias


check.layer_norm(layer_norm_answer)

# %% [markdown]
# Where does the norm stand? The first Transformer and BERT normalise after each addition ([*post-LN*](../docs/glossary.md#post-ln-and-pre-ln)).
# Most later models normalise inside the branch (*pre-LN*), and the stream itself is never touched.

# %% tags=["slide-blocks"]
show(
    figures.blocks_figure(),
    alt="Two drawings of a block. A stream runs from left to right; attention and feed-forward branch "
    "off and are added back. In post-LN a norm follows each addition on the stream; in pre-LN a norm "
    "stands at the start of each branch.",
)

# %% [markdown]
# Does it matter? We build untrained encoders of 2 to 32 layers, ask for a gradient, and measure how
# much of it arrives at the feed-forward weights of each block.


# %%
def gradient_norms(n_layers, *, pre_norm, seed):
    torch.manual_seed(seed)
    encoder = blocks.Encoder(n_layers, 64, 4, 128, pre_norm=pre_norm)
    for weight in encoder.parameters():
        if weight.dim() > 1:
            nn.init.xavier_uniform_(weight)
    states, _ = encoder(torch.randn(4, 8, 64))
    logits = nn.Linear(64, 16)(states[-1])
    F.cross_entropy(logits.flatten(0, 1), torch.randint(16, (32,))).backward()
    return torch.stack([block.feed_forward.expand.weight.grad.norm() for block in encoder.blocks])


depths, norms = [2, 4, 8, 16, 32], {"post-LN": {}, "pre-LN": {}}
for kind, by_depth in norms.items():
    for depth in depths:
        seeds = [gradient_norms(depth, pre_norm=kind == "pre-LN", seed=seed) for seed in range(4)]
        by_depth[depth] = torch.stack(seeds).mean(0)  # (depth,)

# %%
show(
    figures.gradient_figure(depths, norms),
    alt="Two line charts. With more layers, the gradient in the last block stays large in post-LN and "
    "falls in pre-LN. Within 32 blocks, pre-LN's gradient falls smoothly from the first block to the "
    "last, and post-LN's is larger everywhere and uneven.",
)

# %%
post, pre = (norms[kind][32][-1] / norms[kind][2][-1] for kind in ("post-LN", "pre-LN"))
claim("from 2 to 32 layers, pre-LN's last block loses half of its gradient", bool(pre < 0.5))
claim("and post-LN's does not", bool(post > 0.5))

# %% [markdown]
# A post-LN encoder gets large gradients near its output from the first step on, however deep it is.
# Large steps then throw it off before it has learned anything (Xiong and others 2020). That is why
# BERT's learning rate is [*warmed up*](../docs/glossary.md#warm-up), from zero over the first 10 000 steps.
#
# ## Where am I?
#
# Dot products and averages do not know about order. Let us see: we shuffle the tokens of an encoder's
# input.

# %%
torch.manual_seed(0)
encoder = blocks.Encoder(2, 16, 4, 32)
hidden = torch.randn(1, 6, 16)
order = torch.tensor([3, 0, 5, 1, 4, 2])
claim(
    "shuffled words give the same vectors, shuffled",
    near(encoder(hidden)[0][-1][:, order], encoder(hidden[:, order])[0][-1]),
)

# %% [markdown]
# *Dog bites man* and *man bites dog* would be one. So every position gets a vector of its own, a
# [*position embedding*](../docs/glossary.md#position-embedding), which is added to the word's. The first Transformer computed them: waves, from fast to slow, a sine and a
# cosine of each. They work like the digits of a clock: seconds, minutes, hours.
#
# $$P_{p,\,2i} = \sin\frac{p}{10000^{2i/H}} \qquad P_{p,\,2i+1} = \cos\frac{p}{10000^{2i/H}}$$

# %%
legend(blocks.sinusoidal_positions(5, 6), range(5), ["sin", "cos", "sin", "cos", "sin", "cos"])

# %%
positions = blocks.sinusoidal_positions(6, 16)
before, after = encoder(hidden + positions)[0][-1], encoder(hidden[:, order] + positions)[0][-1]
claim("with positions, order makes a difference", not near(before[:, order], after))

# %% [markdown]
# BERT does not compute its positions, it *learns* them like words: a table with one row for each of 512
# places. What did it learn? The model on your disk knows. We compare every position with every other
# (the cosine of the angle between them, and the table's mean taken off first).


# %%
weights_file = find_model(say=lambda line: None).path / "model.safetensors"
with safe_open(weights_file, "pt") as file:
    learned = file.get_tensor("embeddings.position_embeddings.weight")
print("learned:", tuple(learned.shape))

# %%
tables = {
    "computed: sines and cosines": blocks.sinusoidal_positions(64, 384),
    "learned: MiniLM": learned[1:65],
}
show(
    figures.positions_figure(tables),
    alt="Two maps of the similarity of 64 positions. In both a bright band follows the diagonal: "
    "neighbours are alike. Computed positions fade smoothly with distance; learned ones do so with "
    "stripes, waves that the model found by itself.",
)

# %%
alike = figures.similarities(learned[1:65])
near_by, far_off = (alike.diagonal(k).mean().item() for k in (1, 32))
claim("learned positions resemble their neighbours", near_by > 0.5)
claim("and those 32 places away much less", far_off < 0.5 * near_by)

# %% [markdown]
# Nobody told it that 7 comes before 8. Texts did.
#
# ### One more exercise, for those who want it: positions
#
# > Difficulty: medium · about 12 minutes
#
# Return the table of the formula above, (length, hidden_size): sines in the even columns, cosines in the
# odd ones.


# %%
def sinusoidal_positions(length, hidden_size):
    # solution
    even = torch.arange(0, hidden_size, 2)
    angles = torch.arange(length)[:, None] / 10000 ** (even / hidden_size)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


# %%
check.sinusoidal_positions(sinusoidal_positions)


# %% tags=["solution"]
def sinusoidal_positions_answer(length, hidden_size):
    even = torch.arange(0, hidden_size, 2)  # the numbers 2i
    angles = torch.arange(length)[:, None] / 10000 ** (even / hidden_size)  # (S, H/2)
    table = torch.zeros(length, hidden_size)
    table[:, 0::2], table[:, 1::2] = angles.sin(), angles.cos()
    return table


check.sinusoidal_positions(sinusoidal_positions_answer)

# %% [markdown]
# ## The feed-forward is a memory
#
# After attention, each token thinks for itself, in the [*feed-forward*](../docs/glossary.md#feed-forward): two linear maps with a bend between, the same for every
# token. Two thirds of a block's weights are here. What for? Read it as a memory with keys and values,
# like attention, but over facts that were learned, not over the words of the text. The rows of the
# first matrix are keys: patterns. The columns of the second are values: what to add when a pattern
# is met. The bend is a ReLU here, which makes 0 of what is negative; BERT has [*GELU*](../docs/glossary.md#gelu), a rounder one.

# %%
patterns = torch.tensor([[1, -1, 0], [-1, 1, 0]]).float()  # (2, H): water, not money; the reverse
answers = torch.tensor([[0, 0, 5], [0, 0, -5]]).float()  # (2, H): add to, or take from, grammar
met = F.relu(x @ patterns.T)  # (S, 2): how well each token fits each pattern
legend(met, tokens, ["watery", "moneyed"])
legend(met @ answers, tokens, FEATURES)

# %%
memory = nn.Sequential(nn.Linear(3, 2, bias=False), nn.ReLU(), nn.Linear(2, 3, bias=False))
memory[0].weight.data, memory[2].weight.data = patterns, answers.T
claim(
    "a memory of patterns and answers is two linear maps with a ReLU",
    near(memory(x), met @ answers),
)

# %% [markdown]
# *River* fits the first pattern, with strength 2, and gets two times its answer. Nobody else fits.
#
# ## The block
#
# ### Exercise: put it together
#
# > Difficulty: medium · about 8 minutes
#
# A post-LN block, as in the upper drawing. The four parts are given as functions.


# %%
def encoder_block(hidden, attention, first_norm, feed_forward, second_norm):
    # solution
    hidden = first_norm(hidden + attention(hidden))
    return second_norm(hidden + feed_forward(hidden))


# %%
check.encoder_block(encoder_block)


# %% tags=["solution"]
def encoder_block_answer(hidden, attention, first_norm, feed_forward, second_norm):
    hidden = first_norm(hidden + attention(hidden))
    return second_norm(hidden + feed_forward(hidden))


check.encoder_block(encoder_block_answer)

# %%
show_source(blocks.EncoderBlock.forward)

# %% [markdown]
# An [*encoder*](../docs/glossary.md#encoder) is a stack of these. Is ours PyTorch's? We copy the weights over and compare, with padding,
# post-LN and pre-LN.


# %%
def same_as_pytorch(pre_norm):
    ours = blocks.EncoderBlock(16, 4, 32, norm_eps=1e-5, pre_norm=pre_norm)
    theirs = nn.TransformerEncoderLayer(
        16, 4, 32, dropout=0.0, activation="gelu", batch_first=True, norm_first=pre_norm
    )
    copy_attention(ours.attention, theirs.self_attn)
    theirs.linear1.load_state_dict(ours.feed_forward.expand.state_dict())
    theirs.linear2.load_state_dict(ours.feed_forward.contract.state_dict())
    theirs.norm1.load_state_dict(ours.attention_norm.state_dict())
    theirs.norm2.load_state_dict(ours.feed_forward_norm.state_dict())
    hidden = torch.randn(2, 5, 16, requires_grad=True)
    mine, _ = ours(hidden, mask=library.padding_mask(~is_padding))
    other = theirs(hidden, src_key_padding_mask=is_padding)
    slopes = [torch.autograd.grad(out.pow(3).sum(), hidden)[0] for out in (mine, other)]
    return near(mine, other) and near(*slopes)


claim("our block equals nn.TransformerEncoderLayer, forward and backward", same_as_pytorch(False))
claim("with pre-LN, too", same_as_pytorch(True))

# %% [markdown]
# ## What does it cost?
#
# The linear maps and the feed-forward work on every token once: twice the text, twice the work. The
# scores and weights work on every *pair* of tokens: twice the text, four times the work. We time the
# two apart, in a block with H = 192, on one text of growing length.

# %%
block, lengths = blocks.EncoderBlock(192, 4, 768), [64, 128, 256, 512, 1024, 2048]


def milliseconds(function, *inputs):
    times = []
    for _ in range(5):
        began = time.perf_counter()
        with torch.no_grad():
            function(*inputs)
        times.append(1000 * (time.perf_counter() - began))
    return min(times)


def once_per_token(hidden):
    for part in (*block.attention.children(), block.feed_forward):  # five maps, no scores
        part(hidden)


# %%
times = []
for length in lengths:
    hidden = torch.randn(1, length, 192)
    heads = library.split_heads(hidden, 4)
    pairs = milliseconds(library.scaled_dot_product, heads, heads, heads)
    times.append((pairs, milliseconds(once_per_token, hidden)))

# %% [markdown]
# And memory? Training has to keep what the backward pass will need. PyTorch tells us what it keeps, and
# we sort it: tables of pairs (S, S), and everything else.


# %% tags=["nbval-ignore-output"]
def kept_mb(length):
    """Megabytes kept for the backward pass: (tables of pairs, everything else)."""
    kept = kept_for_backward(block, torch.randn(1, length, 192, requires_grad=True))
    pairs = sum(size for shape, size in kept if shape[-2:] == (length, length))
    return pairs / 1e6, (sum(size for _, size in kept) - pairs) / 1e6


kept = [kept_mb(length) for length in lengths]
legend(torch.tensor(kept), lengths, ["pairs", "others"])

# %% tags=["slide-cost"]
show(
    figures.cost_figure(lengths, times, kept),
    alt="Two charts with logarithmic axes against the number of tokens, time on the left and memory on "
    "the right. The part that works on each token grows in proportion; the part that works on pairs "
    "grows with the square and overtakes it for long texts.",
)

# %%
growth = [(b[0] / a[0], b[1] / a[1]) for a, b in itertools.pairwise(kept)]
claim("twice the text, 4 times the memory for pairs", all(abs(p - 4) < 0.01 for p, _ in growth))
claim("and twice the memory for the rest", all(abs(rest - 2) < 0.1 for _, rest in growth))
pairs, rest = (times[-1][k] / times[0][k] for k in (0, 1))
claim("from 64 to 2048 tokens, pairs grow at least twice as much in time", pairs > 2 * rest)

# %% [markdown]
# At the lengths of most tasks, up to a few hundred tokens, the rest is the larger part. Remember that
# when somebody promises you faster attention: for short texts it is the layers that cost.
#
# ## Attention at work
#
# Now we train one. The puzzle has four facts, each a key with its value, and then asks for all keys in
# another order:

# %% tags=["slide-puzzle"]
generator = torch.Generator().manual_seed(0)
input_ids, labels = recall_puzzles(500, generator=generator)
for puzzle, answers in zip(input_ids[:3], labels[:3]):
    print(*spelled(puzzle[:8]), " | ", *spelled(puzzle[8:]), "   answers:", *spelled(answers[8:]))

# %% [markdown]
# Where a key is asked again, the model must say what stood behind it the first time. Every puzzle is
# new, so there is nothing to learn by heart: the answer has to be *found*. The model is what you have
# built: word vectors plus learned positions, an encoder of two layers and two heads, and a linear map
# that names a token.

# %%
show_source(Reader.forward)


# %%
def accuracy(logits, labels):
    asked = labels >= 0
    return (logits.argmax(-1) == labels)[asked].float().mean().item()


def train_reader(*, mask, steps=300, **options):
    torch.manual_seed(0)
    model, curve = Reader(len(TOKENS), 12, **options), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(steps):
        input_ids, labels = recall_puzzles(64, generator=generator)
        logits, _ = model(input_ids, mask=mask)
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())  # -100 is not counted
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(accuracy(logits, labels))  # on puzzles that it had not seen
    return model, curve


# %% [markdown]
# We let it read from left to right, with the [*causal mask*](../docs/glossary.md#causal-mask). Then there is one way to solve the puzzle,
# and we can hope to see it. Beside it we train three that lack something. Make a bet first: which of
# the four will learn it?

# %% tags=["slide-train"]
began = time.perf_counter()
mask = library.causal_mask(12)
readers = {
    "two layers, positions": train_reader(mask=mask),
    "one layer": train_reader(mask=mask, n_layers=1),
    "no positions, no mask": train_reader(mask=None, positions=False),
    "no positions": train_reader(mask=mask, positions=False),
}

# %% tags=["nbval-ignore-output"]
print(f"four trainings: {time.perf_counter() - began:.0f} s")
for name, (_, curve) in readers.items():
    print(f"{name:>22}: {sum(curve[-20:]) / 20:.0%} right in the last 20 steps")

# %% tags=["slide-learning"]
curves = {name: curve for name, (_, curve) in readers.items()}
show(
    figures.learning_figure("What does it take to answer “c 4 d 8 e 7 g 2 : e?” with 7?", curves),
    alt="Line chart of right answers against training steps. Two layers with positions reach 100 "
    "percent within about 100 steps. One layer, and two layers without positions and mask, stay at a "
    "quarter, a guess. Two layers without positions but with the causal mask nearly reach 100 percent.",
)

# %%
final = {name: sum(curve[-20:]) / 20 for name, curve in curves.items()}
claim("two layers answer more than 95 % of the questions", final["two layers, positions"] > 0.95)
claim("one layer guesses", final["one layer"] < 0.35)
claim("without positions and mask it guesses", final["no positions, no mask"] < 0.35)
claim("without positions, but with the causal mask, it learns", final["no positions"] > 0.8)

# %% [markdown]
# **One layer cannot do it.** A question can find its key in one look, but the value stands *beside*
# the key. Two things have to be brought together first, and that takes a layer of its own. When this
# course removes layers, this is what may be lost.
#
# **Without positions** all orders are one, so nothing says which value belongs to which key. But with the
# causal mask it works! The first token sees one token, the second sees two: **a causal mask tells the
# order**, too. (Had you bet on it?)
#
# How does the good one do it? We look at its heads on one puzzle, before and after training.

# %%
model, _ = readers["two layers, positions"]
torch.manual_seed(0)
untrained = Reader(len(TOKENS), 12)
with torch.no_grad():
    before, after = (reader(input_ids, mask=mask)[1] for reader in (untrained, model))
print("layers:", len(after), " weights of each:", tuple(after[0].shape))

# %% [markdown]
# Two numbers say what we hope to see. In the first layer, how much does a value look at the key in front of
# it? In the second, how much does a question look at its answer? We take the best head of each.


# %%
def looks(weights):
    """How much values look at their keys, and questions at their answers: (A,) each."""
    values = torch.arange(1, 8, 2)
    at_key = weights[0][:, :, values, values - 1].mean((0, 2))
    answer = (where_stored(input_ids) + 1)[:, None, :, None].expand(-1, weights[1].shape[1], -1, -1)
    return at_key, weights[1][:, :, 8:].gather(3, answer).mean((0, 2, 3))


(key_before, answer_before), (key_after, answer_after) = looks(before), looks(after)
claim("before: no head gives half of its attention to the keys", bool(key_before.max() < 0.5))
claim("nor to the answers", bool(answer_before.max() < 0.5))
claim("after, layer 0: in one head, values look at their key", bool(key_after.max() > 0.8))
claim("after, layer 1: in one head, questions look at their answer", bool(answer_after.max() > 0.8))

# %%
best = [int(key_after.argmax()), int(answer_after.argmax())]
names = spelled(input_ids[0, :8]) + [f"{key}?" for key in spelled(input_ids[0, 8:])]
maps = {
    f"layer {layer}, {when}": weights[layer][0, best[layer]]
    for when, weights in (("before", before), ("after", after))
    for layer in (0, 1)
}
fig = attention_grid("Where do the tokens look, before and after training?", maps, names, columns=2)
show(
    fig,
    alt="Four attention maps of one puzzle. Before training, the weights are spread over everything "
    "on the left. After training, in layer 0 each value looks at the key in front of it; in layer 1 "
    "each question looks at one value, the one that was stored under its key.",
)

# %% [markdown]
# There it is. **Layer 0**: each value looks one to the left and takes along whose value it is. **Layer 1**:
# each question looks for the value that carries its own key, and reads it. Nobody wrote this
# algorithm; 300 steps of gradient descent found it. Large language models do the same to continue what
# they have read before; the second of the two heads is called an [*induction head*](../docs/glossary.md#induction-head) there.
#
# The viewer shows every head. Follow a question (tokens 8 to 11) through both layers. In a page without a
# kernel, the figure stands for it.

# %% tags=["slide-answer"]
viewed = [layer[0] for layer in after]  # the first puzzle: (A, S, S) per layer
show(
    attention_figure(viewed, names, layer=1, head=best[1], token=8),
    alt="The attention map of layer 1 beside lines from each token to those it looks at. The first "
    "question is set off: nearly all of its attention goes to the value behind its key.",
)

# %%
attention_viewer(viewed, names, layer=1, head=best[1], token=8)

# %% [markdown]
# Try more: `train_reader(mask=mask, n_heads=1)`, or `mask=None`. Without a mask the model mostly learns
# it, too, but in other ways, and another random seed may find another one. Can you read its maps?
#
# ## What to take away
#
# 1. Attention is an average of values; queries and keys decide the weights, √d keeps them able to learn.
# 2. A mask hides scores before the softmax; a row without anything to see needs care, or it is NaN.
# 3. Heads are a reshape with a transpose; residuals keep a stream, LayerNorm keeps its size.
# 4. Order comes from positions, or from a causal mask; the feed-forward is a memory.
# 5. Pairs of tokens cost the square of the length; depth is what lets one look build on another.
#
# ## Three questions
#
# Answer in the cell: put a letter between the brackets, as in `quiz.why_root_d("a")`, and run it.

# %%
quiz.why_root_d()

# %%
quiz.without_positions()

# %%
quiz.twice_as_long()

# %% [markdown]
# `from course_utils.classroom.progress import progress; progress()` shows what you have solved so far.
#
# ## To read
#
# - Vaswani and others (2017), *Attention Is All You Need*: section 3 is this notebook.
# - Devlin and others (2019), *BERT*: what an encoder is good for. The next notebook takes it apart.
# - Xiong and others (2020), *On Layer Normalization in the Transformer Architecture*: post-LN and pre-LN.
# - Geva and others (2021), *Transformer Feed-Forward Layers Are Key-Value Memories*.
# - Elhage and others (2021), *A Mathematical Framework for Transformer Circuits*: heads that work in pairs.
