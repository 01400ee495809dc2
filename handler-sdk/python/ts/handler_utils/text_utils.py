"""Tokenizers and n-grams, as torchtext had them."""

import re
from typing import Any, Callable, Iterable, Iterator, List, Optional, Union

_APART = re.compile(r"(['.,()!?])")
_BLANK = re.compile(r"<br />|[;:]")


def _basic_english(line: str) -> List[str]:
    """Lower case, punctuation as words of its own, quotation marks dropped."""
    line = _BLANK.sub(" ", line.lower()).replace('"', "")
    return _APART.sub(r" \1 ", line).split()


def get_tokenizer(
    tokenizer: Optional[Union[str, Callable[[str], List[str]]]], language: str = "en"
) -> Callable[[str], List[str]]:
    """A function from text to tokens.

    None splits at blanks; a function is taken as it is; `basic_english` is built in; `spacy`, `moses`,
    `toktok`, `revtok` and `subword` need the library that they are from.
    """
    if tokenizer is None:
        return str.split
    if callable(tokenizer):
        return tokenizer
    if tokenizer == "basic_english":
        if language != "en":
            raise ValueError("tokenizer basic_english: knows English only, not {!r}".format(language))
        return _basic_english
    makers = {"spacy": _spacy, "moses": _moses, "toktok": _toktok, "revtok": _revtok, "subword": _subword}
    if tokenizer not in makers:
        raise ValueError(
            "tokenizer {!r}: must be None, a function, basic_english, {}".format(tokenizer, ", ".join(makers))
        )
    try:
        return makers[tokenizer](language)
    except ImportError as cause:
        raise RuntimeError(
            "tokenizer {}: needs the Python package {}".format(tokenizer, cause.name)
        ) from cause


def _spacy(language: str) -> Callable[[str], List[str]]:
    import spacy

    model: Any = spacy.load({"en": "en_core_web_sm", "de": "de_core_news_sm"}.get(language, language))
    return lambda line: [token.text for token in model.tokenizer(line)]


def _moses(language: str) -> Callable[[str], List[str]]:
    from sacremoses import MosesTokenizer

    return MosesTokenizer(lang=language).tokenize


def _toktok(_language: str) -> Callable[[str], List[str]]:
    from nltk.tokenize.toktok import ToktokTokenizer

    return ToktokTokenizer().tokenize


def _revtok(_language: str) -> Callable[[str], List[str]]:
    import revtok

    return revtok.tokenize


def _subword(_language: str) -> Callable[[str], List[str]]:
    import revtok

    def tokenize(line: str) -> List[str]:
        return revtok.tokenize(line, decap=True)

    return tokenize


def ngrams_iterator(token_list: Iterable[str], ngrams: int) -> Iterator[str]:
    """The tokens, then all pairs of neighbours with a blank between, and so on up to `ngrams` neighbours."""
    tokens = list(token_list)
    for length in range(1, ngrams + 1):
        for start in range(len(tokens) - length + 1):
            yield " ".join(tokens[start : start + length])
