"""A tiny random cross-encoder of every family, each with a tokenizer of its family's own kind."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from crossbench.models.folder import ModelFolder
from crossbench.models.sources import LocalModel
from crossbench.models.wordpiece import read_word_list
from tests.helpers.texts import PAIRS

BERT_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ROBERTA_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
VOCABULARY = 600
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
# DistilBERT calls them by names of its own.
DISTILBERT_SIZES = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}


def _corpus() -> list[str]:
    words = read_word_list()
    texts = [text[:2000] for pair in PAIRS for text in (pair.query, pair.passage)]
    return [*texts, " ".join(words["function"]), " ".join(words["content"][:800])]


def wordpiece() -> Tokenizer:
    """BERT's: lower case, [CLS] A [SEP] B [SEP] with types 0 and 1."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY, special_tokens=list(BERT_SPECIAL), show_progress=False
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


def byte_level(special: tuple[str, ...], add_prefix_space: bool = False) -> Tokenizer:
    """Byte-level BPE, with RoBERTa's double separator or with ModernBERT's single one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    if special is ROBERTA_SPECIAL:
        tokenizer.post_processor = processors.RobertaProcessing(
            ("</s>", 2), ("<s>", 0), add_prefix_space=add_prefix_space
        )
    else:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B [SEP]",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
        )
    return tokenizer


def unigram(special: tuple[str, ...]) -> Tokenizer:
    """SentencePiece's unigram model, with XLM-R's double separator or with DeBERTa's single one."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(" {2,}", " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(special),
        unk_token=next(token for token in special if "unk" in token.lower()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    double = special is ROBERTA_SPECIAL
    begin, end = ("<s>", "</s>") if double else ("[CLS]", "[SEP]")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {end} {end} $B {end}" if double else f"{begin} $A {end} $B:1 {end}:1",
        special_tokens=[(begin, special.index(begin)), (end, special.index(end))],
    )
    return tokenizer


@dataclass(frozen=True)
class TinyFamily:
    """`encoder` is whose forward backend=packed runs; `types` whether the tokenizer gives any."""

    name: str
    encoder: str
    tokenizer: Any
    special: tuple[str, ...] = BERT_SPECIAL
    types: bool = True
    pad_id: int = 0
    tokenizer_class: str = "BertTokenizer"
    config: dict[str, Any] = field(default_factory=lambda: dict(SIZES))

    def make(self, folder: Path, **changes: Any) -> ModelFolder:
        """The folder, its weights wide so that wrong ones show."""
        import torch
        from transformers import AutoConfig, AutoModelForSequenceClassification

        begin, end = ("<s>", "</s>") if self.special is ROBERTA_SPECIAL else ("[CLS]", "[SEP]")
        sizes = {**self.config, "initializer_range": 0.3, **changes}
        config = AutoConfig.for_model(
            self.name,
            vocab_size=VOCABULARY,
            max_position_embeddings=130,
            pad_token_id=self.pad_id,
            num_labels=1,
            bos_token_id=self.special.index(begin),
            eos_token_id=self.special.index(end),
            cls_token_id=self.special.index(begin),
            sep_token_id=self.special.index(end),
            **sizes,
        )
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(config).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "norm" in name.lower() or name.endswith("bias"):
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        model.save_pretrained(folder)
        self.tokenizer().save(str(folder / "tokenizer.json"))
        inputs = ["input_ids", *(["token_type_ids"] * self.types), "attention_mask"]
        names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
        kinds = ("pad", "unk", begin, end, "mask")
        tokens = {
            name: next(token for token in self.special if kind.lower() in token.lower())
            for name, kind in zip(names, kinds, strict=True)
        }
        settings = {
            "tokenizer_class": self.tokenizer_class,
            "model_max_length": 128,
            **({"model_input_names": inputs} if "Fast" in self.tokenizer_class else {}),
            **tokens,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        return LocalModel(self.name, str(folder), None).fetch(folder)


FAMILIES = {
    family.name: family
    for family in (
        TinyFamily("bert", "packed", wordpiece),
        TinyFamily("electra", "packed", wordpiece, config={**SIZES, "embedding_size": 32}),
        TinyFamily(
            "distilbert", "packed", wordpiece, types=False, config=DISTILBERT_SIZES,
            tokenizer_class="DistilBertTokenizer",
        ),
        TinyFamily(
            "roberta", "packed", lambda: byte_level(ROBERTA_SPECIAL), ROBERTA_SPECIAL, False, 1,
            "RobertaTokenizer", {**SIZES, "type_vocab_size": 1},
        ),
        TinyFamily(
            "xlm-roberta", "packed", lambda: unigram(ROBERTA_SPECIAL), ROBERTA_SPECIAL, False, 1,
            "XLMRobertaTokenizer", {**SIZES, "type_vocab_size": 1},
        ),
        TinyFamily(
            "modernbert", "transformers", lambda: byte_level(BERT_SPECIAL), types=False,
            tokenizer_class="PreTrainedTokenizerFast",
            config={**SIZES, "local_attention": 32, "global_attn_every_n_layers": 2},
        ),
        TinyFamily(
            "deberta-v2", "transformers", lambda: unigram(BERT_SPECIAL),
            tokenizer_class="DebertaV2Tokenizer",
            config={**SIZES, "relative_attention": True, "pos_att_type": ["p2c", "c2p"],
                    "position_biased_input": False, "type_vocab_size": 0},
        ),
    )
}  # fmt: skip
