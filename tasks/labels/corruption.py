"""Synthetic reply faults: the audit's training data and its planted controls.

Foreign sentences and refusals come from frozen lists, separate ones for training and for measurement, so that no phrase is
found because it was trained on. Everything else is made from the user's own replies, in the same way for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np

from tasks.labels.config import ReplyFault

REPLY_FAULTS: tuple[ReplyFault, ...] = get_args(ReplyFault)
MIN_WORDS = 5
"""Shorter replies are not cut or shuffled: what is left of them is too often still right."""

REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I cannot assist with this request.",
    "I'm unable to provide an answer to that question.",
    "As an AI language model, I am not able to do that.",
    "Sorry, I can't answer that.",
    "I don't know.",
    "I apologize, but I cannot complete this task.",
    "Unfortunately, I do not have enough information to answer.",
    "I'm not able to help you with this. Is there anything else I can do?",
    "It is not possible for me to respond to this request.",
    "I won't be able to help with that, please contact someone else.",
    "No answer available.",
)

CONTROL_REFUSALS = (
    "Sorry, this is not something that I am permitted to answer.",
    "As a virtual assistant I have no access to that kind of information.",
    "I must decline to respond to this one.",
    "There is nothing I can say about this topic.",
    "My guidelines do not allow me to continue with that.",
)
"""Never trained on."""

CONTROL_SENTENCES: tuple[tuple[str, ...], ...] = (
    ("Wir haben Ihre Bestellung erhalten und schicken sie morgen ab.", "Drücken Sie die Taste, bis die Lampe blinkt."),
    ("Nous avons bien reçu votre commande.", "Appuyez sur le bouton jusqu'à ce que le voyant clignote."),
    ("Hemos recibido su pedido y lo enviaremos mañana.", "Mantenga pulsado el botón hasta que la luz parpadee."),
    (
        "Vi har tagit emot din beställning och skickar den i morgon.",
        "Håll knappen intryckt tills lampan blinkar.",
    ),  # Swedish
    ("Siparişinizi aldık ve yarın göndereceğiz.", "Işık yanıp sönene kadar düğmeye basın."),  # Turkish
)
"""Never trained on, and partly in languages that are not."""

FOREIGN_SENTENCES: tuple[tuple[str, ...], ...] = (
    (  # German
        "Bitte öffnen Sie die Einstellungen und wählen Sie den zweiten Punkt aus.",
        "Das Ergebnis hängt davon ab, wie viele Personen an dem Versuch teilnehmen.",
        "Vielen Dank für Ihre Nachricht, wir kümmern uns so schnell wie möglich darum.",
        "Der Satz enthält keinen Fehler und kann so stehen bleiben.",
        "Im Sommer ist es am See besonders schön.",
        "Ein anderes Wort dafür wäre zum Beispiel „ruhig“.",
    ),
    (  # French
        "Vous trouverez la réponse dans la deuxième partie du document.",
        "Le train part tous les matins à huit heures et arrive avant midi.",
        "Merci de nous avoir contactés, nous revenons vers vous dans les meilleurs délais.",
        "Cette phrase est correcte et ne demande aucune modification.",
        "Il faut d'abord mélanger la farine avec les œufs.",
        "La capitale de ce pays est une très belle ville.",
    ),
    (  # Spanish
        "Primero hay que abrir la aplicación y después pulsar el botón azul.",
        "La respuesta depende de la cantidad de agua que haya en el recipiente.",
        "Gracias por escribirnos, le contestaremos lo antes posible.",
        "El perro de mi vecina duerme toda la tarde al sol.",
        "Esta oración no contiene ningún error.",
        "Es una ciudad muy conocida por su historia.",
    ),
    (  # Italian
        "Per favore controlli che il cavo sia collegato correttamente.",
        "Il risultato della moltiplicazione è maggiore di quello che pensavo.",
        "Grazie per averci scritto, le risponderemo il prima possibile.",
        "La frase è già corretta e non c'è niente da cambiare.",
    ),
    (  # Portuguese
        "Você pode encontrar essa opção no menu principal da sua conta.",
        "Não é necessário fazer nada, o pagamento já foi confirmado.",
        "O livro conta a história de uma família que vive no interior.",
        "Esta é a melhor maneira de resolver o problema.",
    ),
    (  # Dutch
        "U kunt het pakket binnen dertig dagen naar ons terugsturen.",
        "De zin is goed geschreven en hoeft niet te worden aangepast.",
        "Het duurt ongeveer een half uur om daar te komen.",
    ),
    (  # Polish
        "Proszę sprawdzić, czy urządzenie jest podłączone do prądu.",
        "To zdanie jest poprawne i nie wymaga żadnych zmian.",
    ),
    (  # Russian
        "Пожалуйста, проверьте настройки и попробуйте ещё раз.",
        "Это предложение написано правильно.",
    ),
    ("请检查您的设置，然后再试一次。", "这个句子没有语法错误。"),  # Chinese
)


def corrupt_reply(
    fault: ReplyFault, index: int, replies: Sequence[str], rng: np.random.Generator, *, is_control: bool = False
) -> str | None:
    """A broken version of ``replies[index]``, or None where it cannot be broken in this way.

    Args:
        fault: How to break it.
        index: Which reply.
        replies: All replies; a swapped one is taken from them.
        rng: Source of the choices.
        is_control: Takes the phrases that are never trained on.
    """
    words = replies[index].split()
    if fault == "mismatched_response":
        others = [replies[other] for other in rng.integers(len(replies), size=5).tolist()]
        return next((other for other in others if other.strip().casefold() != replies[index].strip().casefold()), None)
    if fault == "refusal_response":
        return str(rng.choice(CONTROL_REFUSALS if is_control else REFUSALS))
    if fault == "wrong_language_response":
        languages = CONTROL_SENTENCES if is_control else FOREIGN_SENTENCES
        language = languages[int(rng.integers(len(languages)))]
        size = min(len(language), max(1, round(len(words) / 12)))
        return " ".join(rng.permutation(language)[:size])
    if len(words) < MIN_WORDS:
        return None
    if fault == "truncated_response":
        return _cut(replies[index], float(rng.uniform(0.3, 0.8)))
    for _ in range(5):
        shuffled = [words[position] for position in rng.permutation(len(words))]
        if shuffled != words:
            return " ".join(shuffled)
    return None


def _cut(text: str, share: float) -> str:
    """The opening of a text, cut at a space near ``share`` of its length, without what it then happens to end on."""
    stop = text.rfind(" ", 1, max(2, int(share * len(text))) + 1)
    stop = stop if stop > 0 else text.find(" ")
    return text[:stop].rstrip(" .!?,;:") or text[:stop]
