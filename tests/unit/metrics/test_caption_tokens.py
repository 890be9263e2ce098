"""Expected words were made by the Java tool: PTBTokenizer of CoreNLP 3.4.1 with -lowerCase, and pycocoevalcap's list of punctuation."""

import pytest

from timix_pl.metrics.caption_tokens import caption_tokens

AS_THE_JAVA_TOOL = {
    "A black dog is running after a white dog in the snow .": "a black dog is running after a white dog in the snow",
    "the dog's ball isn't here, can't you see?": "the dog 's ball is n't here ca n't you see",
    "they're it's we'll I'd I'm you've": "they 're it 's we 'll i 'd i 'm you 've",
    "don't; won't! shouldn't've": "do n't wo n't should n't 've",
    "it costs $3.50 & 5% of 1,000": "it costs $ 3.50 & 5 % of 1,000",
    "the U.S. flag at 3:30 p.m. on a T.V. set": "the u.s. flag at 3:30 p.m. on a t.v. set",
    'he said "hi!" -- then left...': "he said hi then left",
    "a snow-covered T-shirt at five o'clock - a two-year-old's": "a snow-covered t-shirt at five o'clock a two-year-old 's",
    "black/white and/or red, A/C 24/7 1/2 and 3-4": "black/white and/or red a/c 24/7 1/2 and 3-4",
    "café naïve — dash “quoted” ‘single’": "café naïve dash quoted single",
    "dogs' toys of 1950's": "dogs toys of 1950 's",
    "a dog cannot swim at a@b.com": "a dog can not swim at a@b.com",
    "at&t x=3 #1": "at & t x = 3 # 1",
    " . ": "",
    "": "",
}


@pytest.mark.parametrize(("caption", "words"), AS_THE_JAVA_TOOL.items())
def test_gives_the_words_of_the_java_tool(caption, words):
    assert caption_tokens(caption) == words.split()


def test_where_it_differs_from_the_java_tool():
    assert caption_tokens("Mr. Smith (left)") == ["mr", "smith", "left"]  # mr. smith -lrb- left -rrb-
