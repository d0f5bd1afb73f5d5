"""Names and probabilities for people: nothing hidden, nothing certain."""

import pytest

from apn.words import as_utf8, printable, probability_words

# As it is, and as it is shown.
NAMES = {
    "café 日本 😀.jpg": "café 日本 😀.jpg",
    "Screenshot 9.41\u202fPM\u00a0.png": "Screenshot 9.41\u202fPM\u00a0.png",  # spaces, as macOS has them
    "photo\u202egpj.exe": r"photo\u202egpj.exe",  # reads "photoexe.jpg"
    "a\u2066b\u200bc\ufeffd\u3164e.png": r"a\u2066b\u200bc\ufeffd\u3164e.png",
    "a\x1b[31m\n\x85\u2028.png": r"a\x1b[31m\n\x85\u2028.png",
    "a\\b.png": "a\\b.png",
}


@pytest.mark.parametrize(("name", "shown"), NAMES.items())
def test_what_cannot_be_seen_is_spelt_out(name: str, shown: str) -> None:
    assert printable(name) == shown
    assert as_utf8(name) == name


def test_bytes_that_are_no_text_are_spelt_out_or_replaced() -> None:
    assert printable("a\udcff.jpg") == r"a\udcff.jpg"
    assert as_utf8("a\udcff.jpg") == "a\N{REPLACEMENT CHARACTER}.jpg"


@pytest.mark.parametrize(
    ("probability", "words"),
    [(0.0, "<0.001"), (0.00049, "<0.001"), (0.0005, "0.001"), (0.5, "0.500"), (0.99949, "0.999"), (0.9995, ">0.999")],
)
def test_a_probability_never_rounds_to_certainty(probability: float, words: str) -> None:
    assert probability_words(probability) == words
