"""Names of made-up people by language and gender, and how a name's language and gender are found."""

from __future__ import annotations

import re
import unicodedata

FEMALE, MALE = "female", "male"
_PEOPLE: dict[str, tuple[str, str, str]] = {
    "en": (
        "Alice Megan Hannah Paula Bridget Joanna Heather Wendy Naomi Tessa Gillian Louise Rachel Abigail",
        "Martin Gareth Simon Keith Duncan Howard Stuart Leonard Curtis Adrian Philip Nathan Graham Russell",
        "Aldridge Barlow Cartwright Dunmore Ellison Fairley Garland Hadley Kirkman Lockhart Mercer Norwood Pemberton",
    ),
    "de": (
        "Annika Birgit Claudia Dörte Frauke Heike Ilka Katrin Lena Mareike Silke Ulrike Wiebke Anke",
        "Bernd Detlef Eckhard Florian Gunther Holger Jochen Karsten Lothar Matthias Norbert Rainer Torsten Uwe",
        "Ahrens Brinkmann Dettmer Ebeling Fahrenholz Grothe Hartwig Jahnke Kröger Lindemann Mertens Petersen Wiese",
    ),
    "fr": (
        "Amélie Brigitte Céline Delphine Estelle Florence Gaëlle Isabelle Justine Mathilde Nadège Solène Valérie Yvette",
        "Antoine Benoît Cédric Didier Fabrice Gilles Hugues Jérôme Laurent Mathieu Olivier Pascal Sylvain Thierry",
        "Arnaud Bonnet Chevalier Delorme Fontaine Gaillard Jourdan Lemoine Marchand Noiret Perrin Renaud Tessier Vidal",
    ),
    "es": (
        "Alba Beatriz Cristina Dolores Elvira Graciela Inés Lorena Marisol Nuria Pilar Rocío Teresa Yolanda",
        "Adolfo Bernardo César Domingo Ernesto Fermín Gonzalo Ignacio Jaime Leandro Marcelo Octavio Ramiro Vicente",
        "Aguilar Benítez Cabrera Delgado Espinosa Fuentes Gallardo Herrera Lozano Montero Navarro Pacheco Salazar Vega",
    ),
    "it": (
        "Alessia Bianca Carlotta Donatella Elisa Federica Ginevra Ilaria Lucrezia Martina Nicoletta Ornella Silvia Viola",
        "Alberto Bruno Claudio Dario Emanuele Fabrizio Giorgio Lorenzo Massimo Nicola Paolo Renato Stefano Vittorio",
        "Amato Barone Caruso Donati Esposito Ferraro Gentile Longo Marchetti Neri Palmieri Ricci Santoro Villa",
    ),
    "nl": (
        "Anneke Brechtje Femke Greetje Hanneke Ilse Jolanda Karin Lieke Marloes Nienke Saskia Trijntje Willemijn",
        "Arjen Bram Coen Diederik Evert Gijs Hendrik Joost Kees Maarten Pieter Ruben Teun Wouter",
        "Bakker Dekker Driessen Hendriks Jacobs Kuipers Lammers Mulder Peeters Postma Schouten Timmermans Verbeek Willems",
    ),
    "pl": (
        "Agnieszka Bożena Dorota Elżbieta Grażyna Halina Iwona Joanna Katarzyna Lidia Małgorzata Renata Urszula Wioletta",
        "Andrzej Bogdan Czesław Dariusz Grzegorz Henryk Jacek Krzysztof Leszek Mariusz Paweł Rafał Tadeusz Wojciech",
        "Adamczyk Banasik Czerwiec Dudek Gajda Jankowiak Kubiak Lis Mazurek Nowicz Pawlak Sobczak Urban Walczak",
    ),
    "pt": (
        "Adriana Benedita Catarina Débora Fernanda Isadora Juliana Letícia Margarida Patrícia Raquel Simone Tatiana Vanessa",
        "Afonso Caetano Duarte Edmundo Filipe Gustavo Heitor Joaquim Leonardo Nuno Otávio Rui Tomás Vasco",
        "Almeida Barbosa Coelho Figueiredo Guimarães Lacerda Machado Moreira Neves Pinheiro Queirós Ribeiro Tavares Vieira",
    ),
    "tr": (
        "Aslı Burcu Ceren Derya Ebru Filiz Gizem Hande İpek Melike Nesrin Pınar Sevgi Tuğba",
        "Adnan Berk Cengiz Doğan Erkan Ferit Gökhan Hakan İlker Kemal Orhan Serkan Tolga Volkan",
        "Akgün Bozkurt Çetin Demirci Erdoğdu Güneş Kaplan Koçak Özkan Polat Sarıkaya Tekin Uysal Yalçın",
    ),
}
STREETS = {
    "en": "{number} {name} Street",
    "de": "{name}straße {number}",
    "fr": "{number} rue {name}",
    "es": "Calle {name} {number}",
    "it": "Via {name} {number}",
    "nl": "{name}straat {number}",
    "pl": "ul. {name} {number}",
    "pt": "Rua {name} {number}",
    "tr": "{name} Sokak No {number}",
}
_LETTERS = {"pl": "łśżźćńąęó", "tr": "ışğ", "de": "äöüß", "es": "ñ", "pt": "ãõ", "fr": "èêëœàçé"}
"""Letters that show a name's language where the text around it is in another; the first language that has one counts."""
_WORD = re.compile(r"[^\W\d_]+")
_MALE_IN_A = frozenset(
    _WORD.findall("luca andrea nicola mattia joshua mustafa sascha ilya nikita mika noah isaiah ezra kostya barnaba jona")
)
_FEMALE_OTHERWISE = frozenset(
    _WORD.findall(
        "ann anne alice claire carmen ingrid elizabeth ruth rachel esther mary nancy jane joan karen susan helen hélène "
        "chloé zoé zoë élodie irène ines inés raquel pilar dolores consuelo beatriz isabel ayşe fatma elif zeynep emine "
        "kerstin birgit gudrun heidi antje anke silke wiebke katrin karin astrid solveig sigrid doris iris lois grace rose "
        "amber ivy olive kate jennifer margaret deborah sharon carol laurel brigitte charlotte camille agnes dagmar edith "
        "sylvie valérie aurélie manon hannah sarah leah judith miriam femke lieke anneke noor mei björk"
    )
)


def identity(part: str) -> str:
    """What two writings of one name share: ``Müller`` and ``Mueller``, ``O'Brien`` and ``OBrien``."""
    plain = part.casefold().replace("ß", "ss").replace("ı", "i").replace("ł", "l").replace("ø", "o")
    plain = re.sub("[aou]e", lambda match: match.group()[0], plain)
    bare = (letter for letter in unicodedata.normalize("NFKD", plain) if letter.isalnum())
    return re.sub("[aou]e", lambda match: match.group()[0], "".join(bare))


def language_of_name(name: str, around: str | None) -> str:
    """The language whose names stand in for a name, from its letters and the language around it."""
    near = around if around in _PEOPLE else "en"
    letters = set(name.casefold())
    fitting = [language for language, own in _LETTERS.items() if letters & set(own)]
    return near if not fitting or near in fitting else fitting[0]


def gender_of_name(name: str) -> str:
    """The gender of a given name by its ending, with the commonest exceptions: a guess, so that most pronouns still fit."""
    plain = name.casefold()
    by_ending = plain.endswith(("a", "ie", "ette", "ine", "elle")) and plain not in _MALE_IN_A
    return FEMALE if plain in _FEMALE_OTHERWISE or by_ending else MALE


def given_names(language: str, gender: str) -> list[str]:
    """Given names of a language."""
    return _PEOPLE[language][0 if gender == FEMALE else 1].split()


def family_names(language: str) -> list[str]:
    """Family names of a language."""
    return _PEOPLE[language][2].split()


_SMALL_WORDS = {
    "en": "the and is my you for with have please this of to i am",
    "de": "der die das und ist ich nicht mit für bitte ein wir",
    "fr": "le les et est je vous pour avec une des pas mon",
    "es": "el los y es por para con una mi que del usted",
    "it": "il gli e è per con una mio che della sono non",
    "nl": "de het een en is ik niet met voor mijn van u",
    "pl": "jest nie na do z mój proszę się w dla to",
    "pt": "o os e é não para com uma meu que do você",
    "tr": "ve bir bu için ile değil benim lütfen çok mi ben da",
}


def language_of_texts(text: str) -> str | None:
    """The language with most of its small words in a text, for the choice of names alone; None without any."""
    words = set(_WORD.findall(text.casefold()))
    counts = {language: len(words & set(small.split())) for language, small in _SMALL_WORDS.items()}
    best = max(counts, key=lambda language: counts[language])
    return best if counts[best] else None
