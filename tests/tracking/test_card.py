"""The description of a version: a card and the gate's sentence, each rewritten without the other."""

from stages.tracking.card import with_card, with_sentence


def test_card_and_sentence_replace_their_own_part_only() -> None:
    described = with_sentence(with_card(None, "What it is."), "It is champion.")
    assert described == "What it is.\n\n**Gate:** It is champion."
    assert with_sentence(described, "It is challenger.") == "What it is.\n\n**Gate:** It is challenger."
    assert with_card(described, "Measured anew.") == "Measured anew.\n\n**Gate:** It is champion."


def test_a_version_of_an_earlier_release_tells_the_sentence_alone() -> None:
    assert with_sentence("It was champion.", "It is challenger.") == "It is challenger."
