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
# # 02 · BERT inside out
#
# > **About 90 minutes**, of which your computer works for about two. Two processor cores are enough;
# > a network is not needed. You should have read notebook 01, or know what an encoder block does.
#
# When you reach the end of this page you will have
#
# - cut words into pieces as BERT does, and met the texts that cost it most,
# - put BERT together from the parts of notebook 01 and found it equal to the library's, layer by layer,
# - taught it to guess hidden words, and let it guess yours,
# - counted its parameters and its arithmetic, part by part, for four models,
# - asked each layer what it knows, trained all of them in twenty lines, and seen which ones moved.

# %% tags=["setup"]
import warnings

warnings.filterwarnings("ignore")

import inspect
import random
import time
from functools import partial

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertModel
from transformers.utils import logging

from course_utils import machine
from course_utils.classroom import check, claim, show_source
from course_utils.classroom.attention_view import attention_figure, attention_viewer
from course_utils.classroom.bert_figures import guesses_figure, layers_figure, parts_figure
from course_utils.classroom.hand import near
from course_utils.classroom.lines import Panel, lines_figure
from course_utils.classroom.plots import COLOURS, show, use_style
from course_utils.classroom.quiz import quiz
from course_utils.data import wordpiece
from course_utils.data.encoding import PadBatch, encode
from course_utils.data.masking import mask_tokens
from course_utils.data.sources import find_model
from course_utils.data.tasks import load_task
from course_utils.distill.mlm import WatchGuesses, train_mlm
from course_utils.distill.trainer import Recipe
from course_utils.measure.accuracy import score
from course_utils.measure.probing import cka_matrix, layer_features, linear_probe
from course_utils.models import anatomy
from course_utils.models.bert import MiniBert
from course_utils.models.encoder import EncoderBlock
from course_utils.models.mlm import has_mlm_head, load_masked_lm, top_guesses

logging.set_verbosity_error()
logging.disable_progress_bar()
use_style()
started = time.perf_counter()

# %% tags=["nbval-ignore-output"]
machine.use_all_cores()
device = machine.describe().device
small = machine.profile() == "smoke"
print(machine.describe())

# %% [markdown]
# ## From words to numbers
#
# BERT does not read letters. It reads *token ids*: row numbers of a table that holds one vector per
# entry of a [*vocabulary*](../docs/glossary.md#vocabulary). A vocabulary of whole words would never end, one of single letters would make
# texts very long. BERT's lies between: frequent words, and pieces of words for all the others.

# %%
model_folder = find_model(say=lambda line: None).path
tokenizer = AutoTokenizer.from_pretrained(model_folder)
vocabulary = tokenizer.get_vocab()
inner = sum(piece.startswith("##") for piece in vocabulary)
print(f"{len(vocabulary):,} entries, {inner:,} of them for the inside of a word")

# %% [markdown]
# The model is MiniLM, a small BERT; its vocabulary is that of `bert-base-uncased`. How is a word cut?
# The algorithm is called [*WordPiece*](../docs/glossary.md#wordpiece) (Wu et al. 2016) and is *greedy*: from the left, take the longest
# piece that is in the vocabulary, then go on behind it. Watch it look for the first piece of a word.

# %%
word = "unaffordable"
for end in range(len(word), 0, -1):
    found = word[:end] in vocabulary
    print(f"{word[:end]:14}", "yes" if found else "not in the vocabulary")
    if found:
        break

# %% [markdown]
# *una*, not *un*: longest wins, whether or not it makes sense. What follows is looked up with two hashes
# in front, because a piece inside a word is another entry, with another vector, than the same letters at
# a word's beginning. If some part of the word fits nowhere, the whole word becomes `[UNK]`, *unknown*.

# %% tags=["slide-pieces"]
for word in ("affordable", "unaffordable", "overfitting", "distillation", "déjà"):
    print(f"{word:14}", *wordpiece.wordpiece(word, vocabulary))

# %% [markdown]
# ### Exercise: cut a word
#
# > Difficulty: medium · about 15 minutes
#
# Write it. `vocabulary` is a dictionary, so `piece in vocabulary` is all you need from it.


# %%
def split_word(word, vocabulary):
    """The pieces of one word, the longest first, with ## inside; ["[UNK]"] if some part fits nowhere."""
    # solution
    pieces, start = [], 0
    while start < len(word):
        prefix = "##" if start else ""
        ends = [e for e in range(len(word), start, -1) if prefix + word[start:e] in vocabulary]
        if not ends:
            return ["[UNK]"]
        pieces.append(prefix + word[start : ends[0]])
        start = ends[0]
    return pieces


# %%
check.split_word(split_word)


# %% tags=["solution"]
def split_word_answer(word, vocabulary):
    pieces, start = [], 0
    while start < len(word):
        prefix = "##" if start else ""
        for end in range(len(word), start, -1):
            if prefix + word[start:end] in vocabulary:
                break
        else:  # the loop ended without a break: no piece fits
            return ["[UNK]"]
        pieces.append(prefix + word[start:end])
        start = end
    return pieces


check.split_word(split_word_answer)

# %% [markdown]
# Before words are cut, a text is *cleaned* and split into words: lower case (the model is *uncased*),
# no accents, each punctuation mark a word of its own.

# %%
text = "Café Müller: it's 12.5 % cheaper!"
print(wordpiece.basic_split(text))
print(wordpiece.tokenize(text, vocabulary))

# %% [markdown]
# That is all of it, one short module: `course_utils/data/wordpiece.py`.
# Does it do what the fast tokenizer does, which is written in Rust? We ask both for the ids of real
# sentences: the documentation of the Python packages on your disk, which notebook 00 introduced.

# %%
task = load_task("pydocs", say=lambda line: None, progress=False)
sentences = task.train["text"][: 300 if small else 5000]
ours = [wordpiece.encode(text, vocabulary)["input_ids"] for text in sentences]
claim(f"all {len(ours):,} texts get identical ids", ours == tokenizer(sentences)["input_ids"])

# %% [markdown]
# ### What is expensive?
#
# A model's work grows with the number of tokens. Six texts of our own show where they come from.

# %%
kinds = {
    "prose": "The median of the values is returned, and missing ones are left out.",
    "names": "Srinivasa Ramanujan wrote a letter to Godfrey Hardy.",
    "numbers": "The sum of 1729 and 4104.25 is 5833.25, or 5.83325e3.",
    "code": "loss.backward(); optimizer.zero_grad(set_to_none=True)",
    "Chinese": "模型变小，速度变快。",
    "emoji": "It works on my machine 🎉🚀 and not on yours 😢",
}
pieces = {kind: wordpiece.tokenize(text, vocabulary) for kind, text in kinds.items()}
for kind in kinds:
    print(f"{kind:>8}", *pieces[kind])

# %% tags=["slide-characters"]
letters = [len(kinds[kind]) / len(pieces[kind]) for kind in kinds]
fig, ax = plt.subplots(figsize=(8, 3.2))
ax.bar_label(ax.barh(list(kinds), letters, color=COLOURS["blue"]), fmt="%.1f", padding=3)
ax.invert_yaxis()
ax.set_xlabel("characters per token")
ax.set_title("How much text fits into one token?")
show(
    fig,
    alt="Bar chart of characters per token: prose has the most, about four and a half, names and "
    "emoji about four, code and numbers a little more than two, Chinese one.",
)

# %% [markdown]
# English prose is cheap. Numbers and code cost twice as much, and 1729 is one token while 4104 is two:
# nothing here knows about digits. Chinese is split into single characters, of which the vocabulary has
# few. Two emoji without a space between them are one word, and unknown. **What becomes `[UNK]` is lost**:
# no layer above can bring it back.
#
# ### Four special tokens, two segments
#
# Four [*special tokens*](../docs/glossary.md#special-tokens) frame a text. `[CLS]` opens it and is where a classifier reads its result. `[SEP]` closes each text. `[MASK]`
# stands for a hidden word. `[PAD]` fills short texts of a batch, and a mask keeps everybody from looking
# at it. BERT was trained on pairs of texts, so each token also has a [*segment id*](../docs/glossary.md#segment-id): 0 or 1.

# %%
pair = wordpiece.encode("Which axis is summed?", vocabulary, pair="The last one.")
tokens = tokenizer.convert_ids_to_tokens(pair["input_ids"])
for name, row in (("token", tokens), ("segment", pair["token_type_ids"])):
    print(f"{name:8}", *(f"{entry!s:6}" for entry in row))

# %% [markdown]
# A BERT has vectors for 512 positions, so longer texts are [*truncated*](../docs/glossary.md#truncation-of-texts): their end is cut off, and the
# special tokens stay. Nobody warns you. If what matters stands at the end, it is gone.

# %%
long_text = "The result is correct, unless the matrix is singular."
for max_length in (16, 8):
    ids = wordpiece.encode(long_text, vocabulary, max_length=max_length)["input_ids"]
    print(max_length, tokenizer.decode(ids))

# %% [markdown]
# ## BERT, assembled
#
# What goes into the first layer is a sum of three vectors: *which* token it is, *where* it stands, and
# *to which segment* it belongs. All three tables are learned.

# %%
bert = MiniBert.from_pretrained(model_folder)
{name: tuple(table.shape) for name, table in bert.embeddings.named_parameters()}

# %% [markdown]
# ### Exercise: the sum of three
#
# > Difficulty: easy · about 5 minutes
#
# `words`, `positions` and `types` are the three tables. `norm` is the LayerNorm, a function.


# %%
def embed(input_ids, token_type_ids, words, positions, types, norm):
    """What the first layer receives, (B, S, H)."""
    # solution
    places = torch.arange(input_ids.shape[1])
    return norm(words[input_ids] + positions[places] + types[token_type_ids])


# %%
check.embed(embed)


# %% tags=["solution"]
def embed_answer(input_ids, token_type_ids, words, positions, types, norm):
    which = words[input_ids]  # (B, S, H)
    where = positions[: input_ids.shape[1]]  # (S, H), the same for every text of the batch
    whose = types[token_type_ids]  # (B, S, H)
    return norm(which + where + whose)


check.embed(embed_answer)

# %% [markdown]
# Above the embeddings stand the blocks of notebook 01, as the original BERT has them: LayerNorm *after*
# each addition, a GELU with the exact error function. At the end the [*pooler*](../docs/glossary.md#pooler), a linear map and a tanh,
# makes one vector of what stands at `[CLS]`. This is a whole BERT:

# %%
show_source(MiniBert.forward)

# %%
show_source(EncoderBlock.forward)

# %%
lines = inspect.getsource(inspect.getmodule(MiniBert)).splitlines()
claim("the library's BERT, reading its files included, is under 150 lines", len(lines) < 150)

# %% [markdown]
# ### Is it really BERT?
#
# It has read the same file as transformers' own class. If the two agree at every layer, on real texts
# of different lengths, with padding, to five decimals, then nothing is missing and nothing too much.

# %%
theirs = AutoModel.from_pretrained(model_folder, dtype=torch.float32, attn_implementation="eager")
batch = tokenizer(sentences[:8], padding=True, truncation=True, return_tensors="pt")
with torch.inference_mode():
    our_output = bert(**batch)
    their_output = theirs.eval()(**batch, output_hidden_states=True, output_attentions=True)
claim("there is padding in this batch", (batch["attention_mask"] == 0).any())


# %%
states, pooled, maps = our_output
claim("the hidden states agree at every layer", all(map(near, states, their_output.hidden_states)))
claim("so do the attention maps", all(map(near, maps, their_output.attentions)))
claim("and the pooled outputs", near(pooled, their_output.pooler_output))

# %% [markdown]
# And at the size of BERT-base? Its weights would be a download of 440 MB. For a comparison, random ones
# do as well.

# %%
torch.manual_seed(0)
base = BertModel(BertConfig(attn_implementation="eager")).eval()
our_base = MiniBert.from_weights(base.config, base.state_dict())
with torch.inference_mode():
    our_states = our_base(**batch).hidden_states
    their_states = base(**batch, output_hidden_states=True).hidden_states
claim("twelve layers of BERT-base's size agree as well", all(map(near, our_states, their_states)))
del base, our_base

# %% [markdown]
# ## Who looks at whom
#
# The attention viewer of notebook 01, now on a real model and a real sentence. Layers and heads are
# counted from 0. We look at one head with a habit of its own.

# %%
sentence = "The river rose after the rain, and the bank of the river was under water."
inputs = tokenizer(sentence, return_tensors="pt")
with torch.inference_mode():
    maps = torch.cat(bert(**inputs).attentions)  # (L, A, S, S)
fig = attention_figure(maps, inputs.tokens(), layer=2, head=9, token=13)
show(
    fig,
    alt="Attention of layer 2, head 9: the second word river looks at the first one, and the first at "
    "the second. Nearly all other tokens look at the opening token [CLS].",
)

# %% [markdown]
# This head looks for *the same word elsewhere*. A token that finds none looks at `[CLS]`, which serves
# as a resting place: attention weights must add up to one even if there is nothing to see. Now try others
# (without a kernel, the figure stands for the sliders). Layer 0, head 2 is the clearest of all.

# %% tags=["nbval-ignore-output"]
attention_viewer(maps, inputs.tokens(), layer=0, head=2, token=10)

# %%
before = maps[0, 2].diagonal(-1)  # how much each token looks at the one before it
claim("in layer 0, head 2, each token looks at the one before it alone", before.min() > 0.95)
claim("the second river looks at the first", maps[2, 9, 13, 2] > 0.5)
claim("from layer 1 on, a third of all weight rests on [CLS]", maps[1:, :, :, 0].mean() > 1 / 3)

# %% [markdown]
# All this looking has a purpose. In the table there is one vector for *bank*. What comes out of the last
# layer depends on the company the word keeps.


# %%
def vectors(word, sentence):
    """The hidden states of `word`, one per layer."""
    inputs = tokenizer(sentence, return_tensors="pt")
    with torch.inference_mode():
        states = bert(**inputs).hidden_states
    return torch.stack(states)[:, 0, inputs.tokens().index(word)]  # (L + 1, H)


river = vectors("bank", sentence)
stream = vectors("bank", "We sat on the bank of the stream and put our feet in the water.")
money = vectors("bank", "She took her money to the bank and asked for a loan.")
likeness = {
    "the bank of a stream": F.cosine_similarity(river, stream).tolist(),
    "the bank with money in it": F.cosine_similarity(river, money).tolist(),
}

# %% tags=["slide-banks"]
panel = Panel(
    x=range(len(river)),
    lines=likeness,
    xlabel="layer (0: embeddings)",
    ylabel="cosine similarity\nto the bank of a river",
)
show(
    lines_figure("Does it know which bank is meant?", panel),
    alt="Two lines over the layers. Both begin near one. The bank of a stream stays close to the bank "
    "of a river; the bank with money in it moves away from it in the first layers and stays away.",
)

# %%
same, other = likeness.values()
claim("in the embeddings all banks are nearly the same", min(same[0], other[0]) > 0.9)
claim("after the last layer, two river banks are closer", same[-1] > other[-1] + 0.05)

# %% [markdown]
# ## What BERT was trained to do
#
# Nobody labelled anything. BERT's main task makes its own labels: hide some words, guess them from the
# others. This is [*masked language modelling*](../docs/glossary.md#masked-language-modelling). Of all tokens 15 % are chosen, and for each of them chance
# decides: 8 times in 10 it becomes `[MASK]`, once a random token, once it stays as it is. The loss counts
# the chosen tokens and nothing else; all others have the label −100.
#
# Why not `[MASK]` every time? Because in use there is no `[MASK]`. A model that has to doubt every word it
# sees must work out a vector for all of them.
#
# ### Exercise: the 80/10/10 mask
#
# > Difficulty: medium · about 15 minutes
#
# So that the result can be checked, chance comes as an argument. A token is chosen if its `chance` is
# below 0.15 and it is not special. A chosen token becomes 103, that is `[MASK]`, if its `fate` is below
# 0.8; it becomes its `random_ids` from there up to 0.9; above, it stays.


# %% tags=["slide-mask-words"]
def mask_words(input_ids, is_special, chance, fate, random_ids):
    """New ids and labels; all arguments and both results are (B, S)."""
    # solution
    chosen = (chance < 0.15) & ~is_special
    labels = torch.where(chosen, input_ids, -100)
    ids = torch.where(chosen & (fate < 0.9), random_ids, input_ids)
    return torch.where(chosen & (fate < 0.8), 103, ids), labels


# %%
check.mask_words(mask_words)


# %% tags=["solution"]
def mask_words_answer(input_ids, is_special, chance, fate, random_ids):
    chosen = (chance < 0.15) & ~is_special
    labels = input_ids.masked_fill(~chosen, -100)
    ids = input_ids.clone()  # the caller still needs the old ones
    ids[chosen & (fate < 0.8)] = 103
    other = chosen & (fate >= 0.8) & (fate < 0.9)
    ids[other] = random_ids[other]
    return ids, labels


check.mask_words(mask_words_answer)

# %% [markdown]
# The library's version draws its own chance. Here it meets our sentence; `→` marks the chosen tokens.

# %%
rules = {
    "special": tokenizer.all_special_ids,
    "mask_id": tokenizer.mask_token_id,
    "vocab_size": len(tokenizer),
}
hidden_ids, labels = mask_tokens(
    inputs["input_ids"], **rules, generator=torch.Generator().manual_seed(3)
)
for old, new, label in zip(
    inputs.tokens(), tokenizer.convert_ids_to_tokens(hidden_ids[0]), labels[0]
):
    print(f"{old} → {new}" if label != -100 else old, end="  ")

# %%
many = tokenizer(sentences[:1000], padding=True, return_tensors="pt")["input_ids"].repeat(5, 1)
hidden_ids, labels = mask_tokens(many, **rules, generator=torch.Generator().manual_seed(0))
chosen, special = labels != -100, torch.isin(many, torch.tensor(tokenizer.all_special_ids))
shares = {
    "are chosen": chosen.sum() / (~special).sum(),
    "of the chosen become [MASK]": (hidden_ids == tokenizer.mask_token_id)[chosen].float().mean(),
    "of the chosen stay": (hidden_ids == many)[chosen].float().mean(),
}
for (what, share), rule in zip(shares.items(), (0.15, 0.8, 0.1)):
    claim(f"{rule:.0%} {what}, give or take 2 in a hundred", abs(share - rule) < 0.02)

# %% [markdown]
# BERT had a second task: [*next-sentence prediction*](../docs/glossary.md#next-sentence-prediction). Half of its pairs were two neighbouring passages,
# half were not, and the vector at `[CLS]` had to tell. It turned out to be too easy. A random passage comes
# from another document and mostly has another *topic*, which a few words give away; whether the second
# passage *follows* from the first hardly matters. RoBERTa (Liu et al. 2019) left the task out and got no
# worse; ALBERT (Lan et al. 2020) replaced it with the order of two passages. DistilBERT dropped it, and
# with it the segments and the pooler, which served little else.
#
# ### The head that guesses
#
# A guess is a probability for each of the 30 522 entries. A matrix from 384 numbers to 30 522 would have
# as many parameters as the table of word embeddings. BERT takes *that very table*: the head is [**tied**](../docs/glossary.md#tied-head).
# The [*hidden state*](../docs/glossary.md#hidden-state) goes through a small *transform* (linear map, GELU, LayerNorm) and is compared, by dot
# product, with every word's embedding; one bias per word is added.
#
# ### Exercise: tie the decoder
#
# > Difficulty: medium · about 10 minutes


# %%
def tied_logits(hidden, transform, word_embeddings, bias):
    """Logits (B, S, V) of hidden states (B, S, H), embeddings (V, H) and biases (V,)."""
    # solution
    return transform(hidden) @ word_embeddings.T + bias


# %%
check.tied_logits(tied_logits)


# %% tags=["solution"]
def tied_logits_answer(hidden, transform, word_embeddings, bias):
    return F.linear(transform(hidden), word_embeddings, bias)  # h Eᵀ + b is a linear map


check.tied_logits(tied_logits_answer)

# %% [markdown]
# ### Guessing, before and after
#
# MiniLM came to us as a model of *sentences*. It was distilled from the attention of a larger model, and no head
# for guessing came with it. So we give it a new one and train head and layers for about a minute on the documentation on your disk. The word
# embeddings are frozen; the table already knows the words. Before, in between and after we ask for the
# words that fit four gaps.

# %%
masked_lm = load_masked_lm(model_folder)
decoder, table = masked_lm.cls.predictions.decoder, masked_lm.bert.embeddings.word_embeddings
claim("decoder and word embeddings are one tensor", decoder.weight is table.weight)

# %%
gaps = {
    "Returns [MASK] if the file exists, otherwise False.": {"true", "none"},
    "This [MASK] returns the sum of its arguments.": {"function", "method"},
    "If [MASK], the default value is used.": {"true", "false", "none", "omitted"},
    "Returns the sum of the elements along the given [MASK].": {"axis", "axes", "dimension"},
}
n_texts, epochs = {"smoke": (64, 1), "cpu": (12000, 1), "gpu": (12000, 5)}[machine.profile()]
corpus = encode(tokenizer, task.train["text"][:n_texts], max_length=48)
watch = WatchGuesses(tokenizer, list(gaps), every=-(-epochs * n_texts // 32 // 4))
learn = Recipe(epochs=epochs, learning_rate=7e-4, batch_size=32, freeze_words=True)
log = train_mlm(masked_lm, tokenizer, corpus, learn, progress=False, callbacks=[watch])

# %%
losses = [float(entry["loss"]) for entry in log]
panel = Panel(
    x=[entry["step"] for entry in log],
    lines={"training": losses},
    xlabel="optimizer step",
    ylabel="loss per hidden token, nats",
    ylim=(0, None),
)
show(
    lines_figure("Does it learn to guess?", panel),
    alt="Line chart: the masked-language loss falls steeply at first, then more and more slowly.",
)

# %%
claim("the loss fell by a third or more", small or losses[-1] < losses[0] * 2 / 3)

# %% tags=["slide-guesses"]
fig = guesses_figure(watch.seen, list(gaps))
show(
    fig,
    alt="Table of the first guess for four gaps at five moments of the training. At first the guesses "
    "are any words or special tokens, and improbable; at the end they are words that fit, and far more probable.",
)

# %%
last = watch.seen[max(watch.seen)]
fits = [fit & {word for word, _ in top[0]} for fit, top in zip(gaps.values(), last)]
claim(
    "for three gaps of four, a word that fits is among the first five",
    small or sum(map(bool, fits)) > 2,
)

# %% [markdown]
# Now you. Write `[MASK]`, in capitals, wherever a word is to be guessed; there may be several.

# %% tags=["nbval-ignore-output", "slide-gap"]
my_sentence = "Returns the [MASK] value of the [MASK] along the given axis."
for number, guesses in enumerate(top_guesses(masked_lm, tokenizer, my_sentence), 1):
    print(f"gap {number}:", ", ".join(f"{word} {prob:.0%}" for word, prob in guesses))

# %% [markdown]
# A head that was trained for a minute on documentation knows little of the rest of the world. The real
# thing has read for days. The next cell asks for `bert-base-uncased` with its own head: in the folder that
# `COURSE_MIRROR` names, in the Hugging Face cache, on the Hub (440 MB, once). Where it cannot be had, the
# cell says so and takes our own.

# %% tags=["nbval-ignore-output"]
found = find_model("bert-base-uncased")
if has_mlm_head(found.path):
    guesser, its_tokenizer = load_masked_lm(found.path), AutoTokenizer.from_pretrained(found.path)
else:
    guesser, its_tokenizer = masked_lm, tokenizer
for text in (
    my_sentence,
    "The capital of France is [MASK].",
    "She was late because of the [MASK].",
):
    print(text)
    for guesses in top_guesses(guesser, its_tokenizer, text):
        print("  ", ", ".join(f"{word} {prob:.0%}" for word, prob in guesses))

# %% [markdown]
# ## Anatomy
#
# Which part owns the parameters? A configuration is enough to count them. The model is built on torch's
# [*meta*](../docs/glossary.md#meta-device) device, where tensors have a shape and no content: BERT-large takes no memory, and nothing is
# downloaded.

# %%
models = anatomy.well_known()
counts = {name: anatomy.count(config) for name, config in models.items()}
print(f"{'':20}", *(f"{name:>12}" for name in counts))
for part in counts["BERT-base"]:
    if any(amounts[part] for amounts in counts.values()):
        print(f"{part:20}", *(f"{amounts[part]:12,}" for amounts in counts.values()))
print(f"{'total':20}", *(f"{sum(amounts.values()):12,}" for amounts in counts.values()))

# %%
claim("BERT-base has 109 482 240 parameters", sum(counts["BERT-base"].values()) == 109_482_240)
claim("DistilBERT has 66 362 880", sum(counts["DistilBERT"].values()) == 66_362_880)
loaded = sum(weight.numel() for weight in bert.parameters())
claim("MiniLM has as many as the model that we loaded", sum(counts["MiniLM"].values()) == loaded)

# %% [markdown]
# ### Exercise: count the parameters
#
# > Difficulty: medium · about 15 minutes
#
# No model, no library, only arithmetic: seven numbers of a configuration, one number out. Count embeddings,
# layers and pooler. Every linear map has biases, every LayerNorm a scale and a shift. One of the seven
# numbers does not matter; which?


# %% tags=["slide-count-parameters"]
def count_parameters(
    n_words, n_positions, n_types, n_layers, hidden_size, n_heads, intermediate_size
):
    """How many parameters a BERT has, without a head on top."""
    # solution
    tables = (n_words + n_positions + n_types) * hidden_size
    square = hidden_size**2 + hidden_size
    norm = 2 * hidden_size
    feed_forward = 2 * hidden_size * intermediate_size + intermediate_size + hidden_size
    return tables + norm + n_layers * (4 * square + feed_forward + 2 * norm) + square


# %%
check.count_parameters(count_parameters)


# %% tags=["solution"]
def count_parameters_answer(
    n_words, n_positions, n_types, n_layers, hidden_size, n_heads, intermediate_size
):
    def linear(m, n):
        return m * n + n

    norm = 2 * hidden_size
    embeddings = (n_words + n_positions + n_types) * hidden_size + norm
    attention = 4 * linear(hidden_size, hidden_size)  # however many heads
    feed_forward = linear(hidden_size, intermediate_size) + linear(intermediate_size, hidden_size)
    layer = attention + norm + feed_forward + norm
    return embeddings + n_layers * layer + linear(hidden_size, hidden_size)


check.count_parameters(count_parameters_answer)

# %% tags=["slide-parameters"]
fig = parts_figure(anatomy.compare(models), per=1e6, unit="M", title="Who owns the parameters?")
show(
    fig,
    alt="One bar per model, cut into shares. Word embeddings own 9 per cent of BERT-large, 21 of "
    "BERT-base, 35 of DistilBERT and 52 of MiniLM; of the rest, feed-forward owns twice as much as "
    "attention.",
)

# %% [markdown]
# Two things to remember. Feed-forward owns twice as much as attention, the part with the famous name. And
# the smaller the model, the more of it is *dictionary*: halving BERT-base's layers leaves 60 % of its
# parameters, as DistilBERT shows. Heads on top are small if they are tied or have few classes.

# %%
head = anatomy.count(models["DistilBERT"], kind=AutoModelForMaskedLM)["head"]
dictionary = counts["DistilBERT"]["word embeddings"]
print(f"DistilBERT's tied head adds {head:,} parameters; untied it would add {head + dictionary:,}")

# %% [markdown]
# And the *arithmetic*? We count [*floating-point operations*](../docs/glossary.md#floating-point-operations): a multiplication and an addition are two. A look-up
# in a table costs none.

# %% tags=["slide-arithmetic"]
rows = []
for length in (16, 64, 128, 256, 512):
    measure = partial(anatomy.flops, length=length, kind=AutoModelForMaskedLM)
    rows += anatomy.compare({f"{length} tokens": models["BERT-base"]}, measure)
fig = parts_figure(rows, per=1e9, unit="G", title="What is BERT-base's arithmetic spent on?")
show(
    fig,
    alt="One bar per length of the text, 16 to 512 tokens, cut into shares. Feed-forward takes about "
    "half, attention projections a quarter, the masked-language head a fifth; attention scores grow "
    "from nothing to 8 per cent.",
)

# %%
quadratic = next(r["share"] for r in rows[::-1] if r["part"] == "attention scores")
claim("even at 512 tokens, the scores take less than a tenth", quadratic < 0.1)
work = {name: sum(anatomy.flops(config, 128).values()) for name, config in models.items()}
ratio = work["DistilBERT"] / work["BERT-base"]
claim("DistilBERT does half of BERT-base's arithmetic", 0.49 < ratio < 0.51)

# %% [markdown]
# These two figures are the argument for everything that follows in this course. **Parameters** are in
# layers *and* dictionary; **arithmetic** is in layers alone. Fewer layers make a model faster. A smaller
# dictionary makes it smaller. Narrower feed-forwards do both. The head costs a fifth of the arithmetic if
# it looks at every token, so we let it look only where the loss does. The quadratic cost of attention,
# which is so often mentioned, hardly matters for texts of this length.
#
# ## What each layer knows
#
# If layers are what costs time: do we need them all? We ask each one, with a [*probe*](../docs/glossary.md#probe). A probe is a small
# linear classifier on frozen features; what it can read off, the layer knows. The features are one
# vector per text and layer: the mean of its tokens.
#
# ### Exercise: one vector for a text
#
# > Difficulty: easy · about 10 minutes


# %%
def mean_pool(hidden, attention_mask):
    """The mean (B, H) of hidden states (B, S, H) over tokens, without padding."""
    # solution
    mask = attention_mask[:, :, None]
    return (hidden * mask).sum(1) / mask.sum(1)


# %%
check.mean_pool(mean_pool)


# %% tags=["solution"]
def mean_pool_answer(hidden, attention_mask):
    total = torch.einsum("bsh,bs->bh", hidden, attention_mask.to(hidden.dtype))
    return total / attention_mask.sum(dim=1, keepdim=True)


check.mean_pool(mean_pool_answer)

# %%
n_texts = {"smoke": 160, "cpu": 1600, "gpu": 8000}[machine.profile()]
plain = task.train["text"][:n_texts]
texts = encode(tokenizer, plain, task.train["label"][:n_texts], max_length=64)
features = layer_features(theirs, texts, progress=False)
probes = {"which library?": linear_probe(features, texts.columns["labels"])}
features.shape

# %% [markdown]
# The first question is PyDocs' own: which of eight libraries is this about? The second one is about
# *order*. We shuffle the words of every other text. Can a probe tell which ones?


# %%
chance = random.Random(0)


def shuffled(text):
    words = text.split()
    return " ".join(chance.sample(words, len(words)))


is_shuffled = [k % 2 for k in range(n_texts)]
mixed = [shuffled(text) if odd else text for text, odd in zip(plain, is_shuffled)]
mixed_features = layer_features(theirs, encode(tokenizer, mixed, max_length=64), progress=False)
probes["words shuffled?"] = linear_probe(mixed_features, is_shuffled)

# %% [markdown]
# And how alike are two layers? Their vectors cannot be compared number by number, because nothing fixes
# the order of the numbers. [*CKA*](../docs/glossary.md#cka) (Kornblith et al. 2019) asks instead whether the same *texts* are close
# to each other in both: 1 means the same pattern, up to a rotation.

# %% tags=["slide-layers"]
alike = cka_matrix(features)
fig = layers_figure(probes, alike, chance=(1 / 8, 1 / 2))
show(
    fig,
    alt="On the left, two probes by layer. Which library: about 60 per cent right in every layer, the "
    "embeddings included; guessing would give 12.5. Words shuffled: a coin's throw in the embeddings, "
    "above 90 per cent in the middle layers, clearly less in the last. On the right, the likeness of "
    "each pair of layers: high between neighbours, low between the first and the last.",
)

# %%
library, order = probes.values()
best = max(layer["accuracy"] for layer in library)
claim(
    "which library: no layer is clearly better than the embeddings",
    small or library[0]["accuracy_high"] > best,
)
claim(
    "shuffled: from the embeddings nobody can tell",
    small or order[0]["accuracy_low"] < 1 / 2 < order[0]["accuracy_high"],
)
claim(
    "in layers 2 to 4 it is plain to see",
    small or min(layer["accuracy"] for layer in order[2:5]) > 0.85,
)
claim(
    "the last layer has let go of it", small or order[6]["accuracy_high"] < order[3]["accuracy_low"]
)
claim("from layer 1 to 4, each is much like the next", small or alike.diagonal(1)[1:4].min() > 0.85)

# %% [markdown]
# *What* a text is about is in its words, and no layer takes it away. *How* the words stand together is worked
# out in the first two layers; this model was trained to compare meanings, and its last layer forgets much
# of it. In layers 2 to 4 both probes find the same, and each layer is much like the next. They are *redundant*, so some may
# go: the student of notebook 00 keeps three of six layers.
#
# ## Fine-tuning in twenty lines
#
# A probe leaves the model as it is. *Fine-tuning* puts a head on top and trains everything together. This
# is the whole loop, with our own BERT and a new head for the eight libraries of PyDocs. Where the machine
# is fast at it, [*autocast*](../docs/glossary.md#autocast) computes matrix products in bfloat16; weights and loss stay in float32.

# %%
torch.manual_seed(0)
model = MiniBert.from_pretrained(model_folder).to(device)
start = {name: weight.clone() for name, weight in model.state_dict().items()}
head = torch.nn.Linear(model.config.hidden_size, len(task.labels), device=device)
optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=1e-4)
fast = machine.describe().dtype == "bfloat16"
n_fine = {"smoke": 64, "cpu": 960, "gpu": 8000}[machine.profile()]
rows = [texts[i] for i in range(n_fine)]
losses = []
for batch in DataLoader(
    rows, batch_size=16, shuffle=True, collate_fn=PadBatch(tokenizer.pad_token_id)
):
    batch = {name: tensor.to(device) for name, tensor in batch.items()}
    labels = batch.pop("labels")
    with torch.autocast(device, torch.bfloat16, enabled=fast):
        logits = head(model(**batch).pooled)  # (B, C)
    loss = F.cross_entropy(logits.float(), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())

# %%
n_test = 80 if small else 400
test = encode(tokenizer, task.test["text"][:n_test], task.test["label"][:n_test], max_length=64)
batches = DataLoader(test, batch_size=50, collate_fn=PadBatch(tokenizer.pad_token_id))
with torch.inference_mode():
    found = [
        head(model(batch["input_ids"].to(device), batch["attention_mask"].to(device)).pooled).cpu()
        for batch in batches
    ]
result = score(torch.cat(found), test.columns["labels"])

# %% tags=["nbval-ignore-output"]
print(f"loss {losses[0]:.2f} at first, {sum(losses[-10:]) / 10:.2f} at the end")
print(
    f"{result['accuracy']:.1%} right ({result['accuracy_low']:.1%} to {result['accuracy_high']:.1%})"
)

# %%
claim("the loss fell", small or sum(losses[-10:]) < 0.8 * sum(losses[:10]))
claim("it is right at least three times as often as a guess", small or result["accuracy"] > 3 / 8)

# %% [markdown]
# What has changed inside? For each part we measure the distance from the start: the length of the change,
# divided by the length of the weights themselves.


# %%
def distance(part):
    """How far the weights whose names begin with `part` have moved, relative to their length."""
    now = {name: w for name, w in model.state_dict().items() if name.startswith(part)}
    change = sum((weight - start[name]).pow(2).sum() for name, weight in now.items())
    return (change / sum(start[name].pow(2).sum() for name in now)).sqrt().item()


parts = {"embeddings": "embeddings."}
parts |= {f"layer {k}": f"encoder.blocks.{k}." for k in range(model.config.num_hidden_layers)}
parts |= {"pooler": "pooler."}
moved = {name: 100 * distance(part) for name, part in parts.items()}

# %% tags=["slide-moved"]
fig, ax = plt.subplots(figsize=(8, 3.4))
ax.barh(list(moved), list(moved.values()), color=COLOURS["green"])
ax.invert_yaxis()
ax.set_xlabel("distance from the start, % of the weights' length")
ax.set_title("What does fine-tuning move?")
show(
    fig,
    alt="Bar chart of the distance from the start: the embeddings have hardly moved, each layer by a few "
    "per cent, the last one most of the six, and the pooler by far more than all of them.",
)

# %%
layers = {name: far for name, far in moved.items() if name.startswith("layer")}
claim("the embeddings moved least", min(moved, key=moved.get) == "embeddings")
claim("no layer moved by more than a twentieth of its length", max(layers.values()) < 5)
claim("of the layers, the last moved most", small or max(layers, key=layers.get) == "layer 5")
claim(
    "the pooler moved more than twice as far as any layer", moved["pooler"] > 2 * layers["layer 5"]
)

# %% [markdown]
# The pooler moved most, and for a reason: a sentence encoder is trained without it, so that it had learned
# nothing yet. Each layer moved by a few per cent, the last ones somewhat more. After so few texts that is not yet
# more often right than the probes were; notebook 00 trains longer. Fine-tuning does not rebuild a model, it nudges one: that is why it needs so
# few texts, and why a student can start from its teacher's own layers.

# %%
claim("all of this took less than ten minutes", time.perf_counter() - started < 600)

# %% [markdown]
# ## What to take away
#
# 1. BERT reads pieces of words, cut greedily. What is expensive or unknown for the tokenizer stays so.
# 2. A BERT is embeddings, blocks and a pooler: under 150 lines, and equal to the library's at every layer.
# 3. Hidden words are labels that cost nothing. Chosen tokens, all of them and only them, have a label.
# 4. Parameters are in dictionary and layers; arithmetic is in layers. Feed-forward has the most of both.
# 5. Words tell what a text is about, the first layers tell their order; neighbours are much alike.
#
# ## Three questions
#
# Read a question, then answer it in a cell of your own: `quiz.why_some_stay("a")`. `progress()` from
# `course_utils.classroom.progress` shows what you have solved.

# %%
quiz.why_some_stay()

# %%
quiz.what_tied_saves()

# %%
quiz.half_the_layers()

# %% [markdown]
# ## To read
#
# - Devlin, Chang, Lee, Toutanova (2019), *BERT*: section 3 and appendix A say what this page shows.
# - Liu and others (2019), *RoBERTa*: which of BERT's choices mattered, measured one by one.
# - Rogers, Kovaleva, Rumshisky (2020), *A Primer in BERTology*: what is known about heads and layers.
# - Wu and others (2016), *Google's Neural Machine Translation System*, section 4.1: where WordPiece is told.
