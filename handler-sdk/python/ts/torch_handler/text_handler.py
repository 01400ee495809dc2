"""What handlers of text have in common: cleaning, tokens and a vocabulary."""

import os
import re
import string
import unicodedata
from abc import ABC
from typing import Any, Iterable, List

import torch

from ts.handler_utils.text_utils import get_tokenizer
from ts.handler_utils.weights import load_weights
from ts.utils.util import CLEANUP_REGEX

from .base_handler import BaseHandler
from .contractions import CONTRACTION_MAP

_CONTRACTIONS = re.compile(
    r"(?<!\w)(?:{})(?!\w)".format("|".join(sorted(map(re.escape, CONTRACTION_MAP), key=len, reverse=True))),
    re.IGNORECASE,
)
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class TextHandler(BaseHandler, ABC):
    """Has the archive's vocabulary in `source_vocab`: token → index."""

    def __init__(self) -> None:
        super().__init__()
        self.source_vocab: Any = None
        self._basic_english = get_tokenizer("basic_english")

    def initialize(self, context: Any) -> None:
        super().initialize(context)
        self.initialized = False
        self.source_vocab = load_weights(self.get_source_vocab_path(context), None, self.model_yaml_config)
        self.initialized = True

    def get_source_vocab_path(self, context: Any) -> str:
        """Where the vocabulary is: what the manifest says, else `source_vocab.pt`."""
        name = context.manifest["model"].get("sourceVocab") or "source_vocab.pt"
        path = os.path.join(context.system_properties.get("model_dir"), name)
        if not os.path.isfile(path):
            raise RuntimeError("Missing the source_vocab file: {} is not in the archive".format(name))
        return path

    def token_index(self, token: str) -> int:
        """The index of a token, or that of `<unk>` for one that the vocabulary lacks."""
        vocabulary = self.source_vocab
        if not isinstance(vocabulary, dict):
            return vocabulary[token]
        index = vocabulary.get(token)
        return vocabulary.get("<unk>", 0) if index is None else index

    def get_word_token(self, input_tokens: Iterable[Any]) -> List[str]:
        """Tokens as text: those that are indices are looked up in the vocabulary."""
        words: List[str] = []
        by_index = None
        for token in input_tokens:
            if isinstance(token, str):
                words.append(token)
                continue
            if by_index is None:
                by_index = self._tokens_by_index()
            words.append(by_index.get(int(token), "<unk>"))
        return words

    def _tokens_by_index(self) -> Any:
        vocabulary = self.source_vocab
        tokens = vocabulary if isinstance(vocabulary, dict) else vocabulary.get_stoi()
        return {index: token for token, index in tokens.items()}

    def _expand_contractions(self, text: str) -> str:
        def expand(match: Any) -> str:
            short = match.group(0)
            full = CONTRACTION_MAP[short.lower()]
            return full.capitalize() if short[0].isupper() else full

        return _CONTRACTIONS.sub(expand, text.replace("\u2019", "'"))

    def _remove_accented_characters(self, text: str) -> str:
        return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")

    def _remove_html_tags(self, text: str) -> str:
        return CLEANUP_REGEX.sub("", text)

    def _remove_punctuation(self, text: str) -> str:
        return text.translate(_PUNCTUATION)

    def _remove_puncutation(self, text: str) -> str:
        """The name under which old handlers know `_remove_punctuation`."""
        return self._remove_punctuation(text)

    def _tokenize(self, text: str) -> List[str]:
        return self._basic_english(text)

    def summarize_attributions(self, attributions: Any) -> Any:
        """One number for each token: the sum over its embedding, scaled to length 1 over the text."""
        sums = attributions.sum(dim=-1).squeeze(0)
        return sums / torch.norm(sums).clamp_min(torch.finfo(sums.dtype).tiny)
