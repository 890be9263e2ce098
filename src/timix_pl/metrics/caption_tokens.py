"""Split captions into words like the COCO caption evaluation, without its Java tool."""

import re

_STRAIGHT_QUOTES = str.maketrans("‘’“”", "''\"\"")

_WORD = re.compile(
    r"""
    [^\W_]+ (?=n't\b)                                          # did|n't
    | '(?:s|re|ve|ll|d|m)\b                                    # dog|'s
    | can (?=not\b)                                            # can|not
    | (?:[^\W\d_]\.){2,}                                       # u.s.
    | \d+ (?:[.,:/]\d+)+                                       # 1,000 and 3:30
    | [^\W_]+ (?:[-/_@.][^\W_]+ | '(?!(?:s|re|ve|ll|d|m)\b)[^\W_]+)*  # t-shirt, o'clock
    | [^\s.?!,:;'"`()\[\]{}\-–—…]                              # & and #; punctuation is left out
    """,
    re.VERBOSE,
)


def caption_tokens(caption: str) -> list[str]:
    """The words of a caption in lower case, without punctuation; endings like 's and n't are separate words.

    Follows the Penn Treebank tokenizer of CoreNLP 3.4.1 and the list of punctuation that pycocoevalcap removes. Two differences: this
    function removes the period of abbreviations except those of single letters (u.s.), where the Java tool keeps "mr."; and it removes
    brackets, where the Java tool keeps "-lrb-".

    >>> caption_tokens("The dog's T-shirt isn't red, is it?")
    ['the', 'dog', "'s", 't-shirt', 'is', "n't", 'red', 'is', 'it']
    """
    return _WORD.findall(caption.lower().translate(_STRAIGHT_QUOTES))
