"""Names, probabilities and verdicts for people: nothing hidden, nothing certain."""

import numpy as np
import pytest

import apn
from apn.detection import Delivery, Detection
from apn.detector import _settle
from apn.words import as_utf8, frames_words, hanging, printable, probability_words, verdict_line

# As it is, and as it is shown.
NAMES = {
    "café 日本 😀.jpg": "café 日本 😀.jpg",
    "Screenshot 9.41\u202fPM\u00a0.png": "Screenshot 9.41\u202fPM\u00a0.png",  # spaces, as macOS has them
    "photo\u202egpj.exe": r"photo\u202egpj.exe",  # reads "photoexe.jpg"
    "a\u2066b\u200bc\ufeffd\u3164e.png": r"a\u2066b\u200bc\ufeffd\u3164e.png",
    "a\x1b[31m\n\x85\u2028.png": r"a\x1b[31m\n\x85\u2028.png",
    "a\\b.png": "a\\b.png",
    "\U0001f469\u200d\U0001f467.jpg": "\U0001f469\u200d\U0001f467.jpg",  # a mother and her daughter, one emoji
    "\U0001f469\U0001f3fd\u200d\u2764\ufe0f\u200d\U0001f468": "\U0001f469\U0001f3fd\u200d\u2764\ufe0f\u200d\U0001f468",
    "1\ufe0f\u20e3.jpg": "1\ufe0f\u20e3.jpg",  # a key with the digit 1
    "\u845b\U000e0100.jpg": "\u845b\U000e0100.jpg",  # an ideograph as one city writes it
    "a\u200db.jpg": r"a\u200db.jpg",
    "\U0001f469\u200d.jpg": "\U0001f469\\u200d.jpg",
    "a\ufe0f\U000e0100.jpg": r"a\ufe0f\U000e0100.jpg",  # looks as "a.jpg" does
}


@pytest.mark.parametrize(("name", "shown"), NAMES.items())
def test_what_cannot_be_seen_is_spelt_out(name: str, shown: str) -> None:
    assert printable(name) == shown
    assert as_utf8(name) == name


def test_a_long_note_hangs_under_its_first_line_and_no_word_is_cut() -> None:
    note = "not stable: real as it is, but not when saved photos/of-a-very/long-name.jpg"
    assert hanging(note, width=30, indent=4).splitlines() == [
        "    not stable: real as it is,",
        "      but not when saved",
        "      photos/of-a-very/long-name.jpg",
    ]
    assert hanging(note, width=None, indent=4) == f"    {note}"  # a program reads whole lines
    assert hanging(note, width=len(note)) == note


def test_bytes_that_are_no_text_are_spelt_out_or_replaced() -> None:
    assert printable("a\udcff.jpg") == r"a\udcff.jpg"
    assert as_utf8("a\udcff.jpg") == "a\N{REPLACEMENT CHARACTER}.jpg"


@pytest.mark.parametrize(
    ("probability", "words"),
    [(0.0, "<0.001"), (0.00049, "<0.001"), (0.0005, "0.001"), (0.5, "0.500"), (0.99949, "0.999"), (0.9995, ">0.999")],
)
def test_a_probability_never_rounds_to_certainty(probability: float, words: str) -> None:
    assert probability_words(probability) == words


def test_verdicts_never_round_to_certainty() -> None:
    for probability, words in ((0.0001, "<0.001"), (0.99991, ">0.999"), (0.5, "0.500")):
        assert f"probability {words} of" in verdict_line(Detection("a", verdict="unsure", probability=probability))
    assert verdict_line(Detection("a", error="empty")) == "not checked: empty"


@pytest.mark.parametrize(
    "warning", ["small: 9 x 9 pixels", "no colour: grey", "flat: 92%", "not stable: real as it is"]
)
def test_a_probability_that_does_not_stand_is_said_not_to(warning: str) -> None:
    row = Detection("a", verdict="unsure", probability=0.919, warnings=("strongly compressed: 15", warning))
    assert verdict_line(row) == "unsure, the probability 0.919 of being AI-generated does not stand"


def test_what_the_detector_itself_calls_void_is_told_so() -> None:
    """The words above are the detector's own, not only this file's."""
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    pictures = {"small": noise[:100], "no colour": noise[..., :1].repeat(3, axis=2), "flat": np.full_like(noise, 90)}
    for kind, row in zip(pictures, apn.load("apn-mini").detect_many(pictures.values()), strict=True):
        assert any(warning.startswith(f"{kind}: ") for warning in row.warnings), row
        assert verdict_line(row).endswith("does not stand")
    moved = _settle(Detection("a", verdict="real", probability=0.01), (Delivery("JPEG 75", 0.5, 0.0, "unsure"),))
    assert verdict_line(moved) == "unsure, the probability 0.010 of being AI-generated does not stand"


def test_a_probability_that_stands_is_told_as_such() -> None:
    compressed = Detection("a", verdict="unsure", probability=0.45, warnings=("strongly compressed: 15",))
    assert verdict_line(compressed) == "unsure, probability 0.450 of being AI-generated"
    found = Detection("a", verdict="generated", probability=0.97, warnings=("strongly compressed: 15",))
    assert verdict_line(found) == "looks AI-generated, probability 0.970 of being AI-generated"


@pytest.mark.parametrize(
    ("format", "which"), [("GIF", "first"), ("TIFF", "first"), ("ICO", "largest"), ("HEIF", "main one")]
)
def test_which_of_several_pictures_was_scored_is_told(format: str, which: str) -> None:
    assert (
        frames_words(Detection("a", format=format, frames=3)) == f"3 pictures in the file, only the {which} is scored"
    )
    assert frames_words(Detection("a", format=format, frames=1)) is None
    assert frames_words(Detection("a", error="the file is empty")) is None
