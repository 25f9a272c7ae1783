"""What the detectors read: a text with its disguises undone, and the way back to every place of the original."""

from __future__ import annotations

import pytest

from tasks.pii.detect.tokens import make_view


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("<b>536-2</b>2-1234", "<b>536-22-1234"),
        ('call 415<span class="x">555</span>2671', "call 4155552671"),
        ("<b>Note.</b> Next", "<b>Note.</b> Next"),
        ("one<br>two", "one<br>two"),
        ("81[.]2[.]69[.]142", "81.2.69.142"),
        ("jo(@)corp(.)example", "jo@corp.example"),
        ("%4A%6F%20%52%6F%65", "Jo Roe"),
        ("M%C3%BCller", "Müller"),
        ("50%20off", "50%20off"),
        ("A.n.n B.e.l.l", "Ann Bell"),
        ("K a r i n   N o w a k", "Karin   Nowak"),
        ("the U.S.A. and J. R. R. Tolkien, e.g. at 5 p.m.", "the U.S.A. and J. R. R. Tolkien, e.g. at 5 p.m."),
        ("G B 8 2 W E S T 1 2", "G B 8 2 W E S T 1 2"),
        ("mail k@bеisрiеl.dе", "mail k@beispiel.de"),
        ("Привет, Ann", "Привет, Ann"),
    ],
)
def test_disguises_are_undone_and_ordinary_text_stays(text: str, plain: str) -> None:
    assert make_view(text).text == plain


def test_a_span_of_the_copy_covers_its_disguise_in_the_original() -> None:
    text = "I am A.n.n, <b>536-2</b>2-1234, at %4A%C3%B6."
    view = make_view(text)
    for found, given in (("Ann", "A.n.n"), ("536-22-1234", "536-2</b>2-1234"), ("Jö", "%4A%C3%B6")):
        start = view.text.index(found)
        first, last = view.to_original(start, start + len(found))
        assert text[first:last] == given
