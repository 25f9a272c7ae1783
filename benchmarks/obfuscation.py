"""Personal values that are written to be overlooked: what the scrubber leaves of them, by disguise and by kind.

    python benchmarks/obfuscation.py                 # every disguise of every value, in sentences of seven languages
    python benchmarks/obfuscation.py --mode turbo --show

The values are invented; check digits hold. A value leaks when one letter or digit of its disguise is not masked. Wanted is
a tenth at most. ``--show`` prints what leaked.
"""

from __future__ import annotations

import argparse
import base64
import os
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.scrub_quality import scrubber

Disguise = Callable[[str], str]

VALUES = {
    "card": ("4111111111111111", "5500005555555559", "378282246310005"),
    "phone": ("+14155552671", "+493090182044", "02079460958"),
    "number of a person": ("536-22-1234", "219-09-9998"),
    "IBAN": ("DE89370400440532013000", "GB82WEST12345698765432"),
    "e-mail": ("ann.bell@example.org", "k.mueller@beispiel.de", "jose_garcia@correo.es"),
    "name": ("Ann Bell", "José García", "Katharina Müller"),
    "address of a device": ("81.2.69.142", "2001:470:1f0b:9a4::2"),
}
CARRIERS = (
    "My details for the file: {}. Please call me back.",
    "Bitte notieren Sie für mich: {} und rufen Sie zurück.",
    "Voici mes coordonnées : {} et merci de me rappeler.",
    "Mis datos son los siguientes: {} y espero su respuesta.",
    "I miei dati sono questi: {} e attendo una risposta.",
    "Os meus dados são estes: {} e aguardo resposta.",
    "Mijn gegevens zijn: {} en ik hoor graag van u.",
)
WORDS = {
    str(number): word
    for number, word in enumerate(("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"))
}
ALIKE = str.maketrans("aceopxyABCEHKMOPTX", "асеорхуАВСЕНКМОРТХ")  # Latin, and Cyrillic that looks the same
MISREAD = str.maketrans("015", "OlS")
LEET = str.maketrans("aeiosAEIO", "43105" + "4310")


def digits_from(zero: str) -> Disguise:
    """Digits of another script, from its zero."""
    return lambda value: "".join(chr(ord(zero) + int(c)) if c in WORDS else c for c in value)


def between(mark: str) -> Disguise:
    """A mark between all letters and digits."""
    return mark.join


def grouped(mark: str) -> Disguise:
    """Groups of three or four with a mark between them."""

    def disguise(value: str) -> str:
        plain = value.replace("-", "")
        return mark.join(plain[place : place + 4] for place in range(0, len(plain), 4))

    return disguise


def wide(value: str) -> str:
    """Full-width forms."""
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in value)


def in_turns(value: str) -> str:
    """Half of it in one turn, half in the next."""
    half = len(value) // 2
    return f"{value[:half]}\nAgent: And the rest?\nCustomer: {value[half:]}"


EVERYWHERE: dict[str, Disguise] = {
    "zero-width spaces": between("\u200b"),
    "soft hyphens": between("\u00ad"),
    "word joiners": between("\u2060"),
    "full-width": wide,
    "tags within": lambda value: f"<b>{value[: len(value) // 2]}</b>{value[len(value) // 2 :]}",
    "HTML entities": lambda value: "".join(f"&#{ord(c)};" for c in value),
    "hex entities": lambda value: "".join(f"&#x{ord(c):x};" for c in value),
    "percent": lambda value: "".join(f"%{byte:02X}" for byte in value.encode()),
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
    "escapes": lambda value: "".join(f"\\u{ord(c):04x}" for c in value),
    "in JSON": lambda value: f'{{"note": "{value}", "n": 1}}',
    "in XML": lambda value: f"<kunde><wert>{value}</wert></kunde>",
    "in a URL": lambda value: f"https://example.org/?q={value.replace('+', '%2B').replace(' ', '+')}",
}
NUMBERS: dict[str, Disguise] = {
    "single spaces": between(" "),
    "groups, spaced hyphens": grouped(" - "),
    "groups, underscores": grouped("_"),
    "groups, middle dots": grouped("·"),
    "groups, commas": grouped(", "),
    "groups, slashes": grouped("/"),
    "groups, tabs": grouped("\t"),
    "groups, line ends": grouped("\n"),
    "Arabic digits": digits_from("٠"),
    "Devanagari digits": digits_from("०"),
    "bold digits": digits_from("𝟎"),
    "misread": lambda value: value.translate(MISREAD),
    "spoken": lambda value: " ".join(WORDS.get(c, "dash" if c == "-" else "plus" if c == "+" else c) for c in value),
    "over two turns": in_turns,
    "in brackets": lambda value: f"[{value}]",
    "after a placeholder": lambda value: f"<ID_NUMBER:{value}>",
}
MAILS: dict[str, Disguise] = {
    "words": lambda value: value.replace("@", " at ").replace(".", " dot "),
    "brackets": lambda value: value.replace("@", " [at] ").replace(".", " [dot] "),
    "parentheses": lambda value: value.replace("@", "(at)").replace(".", "(dot)"),
    "spaces": lambda value: value.replace("@", " @ ").replace(".", " . "),
    "capitals": str.upper,
    "look-alikes": lambda value: value.translate(ALIKE),
}
NAMES: dict[str, Disguise] = {
    "spaced letters": lambda value: "   ".join(" ".join(word) for word in value.split()),
    "dotted letters": lambda value: " ".join(".".join(word) for word in value.split()),
    "look-alikes": lambda value: value.translate(ALIKE),
    "digits for letters": lambda value: value.translate(LEET),
    "capitals": str.upper,
    "turned round": lambda value: ", ".join(reversed(value.split())),
    "decomposed": lambda value: unicodedata.normalize("NFD", value),
    "underscore": lambda value: value.replace(" ", "_"),
}


def disguises_of(kind: str) -> dict[str, Disguise]:
    own = {"e-mail": MAILS, "name": NAMES, "address of a device": {"brackets": lambda value: value.replace(".", "[.]")}}
    return EVERYWHERE | own.get(kind, NUMBERS)


def texts() -> Iterator[tuple[str, str, str, int, int]]:
    """Kind, disguise, text, and where in it the disguised value stands."""
    for kind, values in VALUES.items():
        for number, (name, disguise) in enumerate(disguises_of(kind).items()):
            for place, value in enumerate(values):
                before, after = CARRIERS[(number + place) % len(CARRIERS)].split("{}")
                hidden = disguise(value)
                yield kind, name, before + hidden + after, len(before), len(before) + len(hidden)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", default="strict")
    parser.add_argument("--show", action="store_true")
    options = parser.parse_args()
    cases = list(texts())
    masked = scrubber(options.mode)([text for _, _, text, _, _ in cases])
    total, leaked = Counter[str](), Counter[str]()
    for (kind, name, text, start, end), spans in zip(cases, masked, strict=True):
        covered = {place for span in spans for place in range(*span)}
        own = {"in JSON": '{"note": "', "in XML": "<kunde><wert>", "in a URL": "https://example.org/?q="}.get(name, "")
        frame = set(range(start, start + len(own))) | frame_of(text, start, end, name)
        left = [place for place in range(start, end) if text[place].isalnum() and place not in covered | frame]
        for key in (kind, f"  {name}", "all"):
            total[key] += 1
            leaked[key] += bool(left)
        if left and options.show:
            print(f"{kind} | {name} | {text[start:end]!r} | left {''.join(text[place] for place in left)!r}")
    print(f"{'':28}{'values':>8}{'leak':>8}{'share':>8}")
    for key, count in sorted(total.items(), key=lambda item: (item[0] == "all", item[0].startswith("  "), item[0])):
        print(f"{key:28}{count:>8}{leaked[key]:>8}{leaked[key] / count:>8.1%}")


def frame_of(text: str, start: int, end: int, name: str) -> set[int]:
    """Places within a disguise that are not of the value: marks that name nobody."""
    words = {
        "in JSON": ['", "n": 1}'],
        "in XML": ["</wert></kunde>"],
        "tags within": ["<b>", "</b>"],
        "over two turns": ["Agent: And the rest?", "Customer:"],
        "after a placeholder": ["<ID_NUMBER:"],
        "words": [" at ", " dot "],
        "brackets": ["[at]", "[dot]"],
        "parentheses": ["(at)", "(dot)"],
        "spoken": ["dash", "plus"],
    }
    places: set[int] = set()
    for word in words.get(name, []):
        place = text.find(word, start, end)
        while place >= 0:
            places |= set(range(place, place + len(word)))
            place = text.find(word, place + 1, end)
    return places


if __name__ == "__main__":
    main()
