"""A tiny BERT classifier with random weights, and a tokenizer that splits words."""

from __future__ import annotations

from pathlib import Path

TEXTS = [
    "The array holds the sum of every row.",
    "A tensor moves to the device.",
    "Plot the line.",
    "Returns a new frame, sorted by the labels of its index, with missing values first.",
    "The estimator fits the data and predicts a class for every sample it has not seen.",
    "Compute the inverse of a matrix",
    "unseen quixotic words?",
    "the",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# What a WordPiece trainer learns from TEXTS, the most useful pieces first. It is written down, for
# the trainer orders equal pieces by chance: the same model would be another in every process.
PIECES = """
    , . ? a b c d e f g h i l m n o p q r s t u v w x y ##u ##m ##e ##v ##i ##c ##o ##s ##a ##l
    ##t ##f ##n ##r ##y ##p ##w ##d ##x ##b ##g ##h th the ##or ##ve of ##en ##ic ##ot ##at ##ts
    ##ver ever fi in ##mp ##ed ##een ##in ##ix ##ss ##st ##ns ##ra ##ds every an ar by co cl de
    dat est for fra ho ha it its la lin mi mo mat ne not pl pr qu re ro su sa sor seen to ten uns
    va wi wor ##ue ##ut ##ur ##me ##mat ##el ##ex ##vic ##imat ##se ##sor ##ass ##le ##lds ##lue
    ##th ##ted ##tur ##rix ##rst ##dex ##bel ##ves ##icts ##otic ##verse fits first index inverse
    ##mput ##mple ##edicts ##ing ##ixotic ##ssing ##ray and array comput class devic data estimat
    frame holds has label line missing moves matrix new plot predicts quixotic retur row sum
    sample sorted tensor unseen value with words compute device estimator labels returns values
"""


def write_classifier(folder: Path, **changes) -> Path:
    """The folder, with a random BERT classifier and a WordPiece tokenizer made from `TEXTS`."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    labels = ["numpy", "torch", "pandas"]
    config = {
        "vocab_size": 120,
        "num_hidden_layers": 4,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "id2label": dict(enumerate(labels)),
        "label2id": {label: k for k, label in enumerate(labels)},
        "initializer_range": 0.2,
    } | changes
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**config)).eval()
    with torch.no_grad():  # biases that are not zero, norms that are not one: nothing cancels out
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        some = model(torch.randint(5, config["vocab_size"], (64, 12))).logits
        model.classifier.weight /= some.std(0)[:, None]  # so that every class is chosen at times
        model.classifier.bias.sub_(some.mean(0)).div_(some.std(0))
    model.save_pretrained(folder)
    write_tokenizer(folder, config["vocab_size"])
    return folder


def made(kind, config, seed=0):
    """A model of this class in eval mode with random weights, biases and norms, too."""
    import torch

    torch.manual_seed(seed)
    model = kind(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model


def write_tokenizer(folder: Path, vocab_size: int) -> None:
    """Saves a BERT tokenizer of at most `vocab_size` pieces, those of `TEXTS`."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = [*SPECIAL, *PIECES.split()][:vocab_size]
    tokenizer = Tokenizer(
        models.WordPiece({piece: k for k, piece in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", SPECIAL.index("[SEP]")), ("[CLS]", SPECIAL.index("[CLS]"))
    )
    tokenizer.decoder = decoders.WordPiece()
    names = {f"{token.strip('[]').lower()}_token": token for token in SPECIAL}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=64, **names
    ).save_pretrained(folder)
