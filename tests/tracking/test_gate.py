from stages.tracking.gate import Candidate, choose_champion


def test_the_best_on_val_is_champion_and_the_numbers_are_told() -> None:
    decision = choose_champion([Candidate("a", 0.16), Candidate("b", 0.64), Candidate("c", 0.43)])
    assert decision.champion == "b"
    assert decision.reason == "b is champion with 64.00% top-1 on val, before c (43.00%), a (16.00%)"


def test_of_equals_the_first_named_is_champion() -> None:
    assert choose_champion([Candidate("b", 0.5), Candidate("a", 0.5)]).champion == "b"


def test_a_single_model_is_champion() -> None:
    assert choose_champion([Candidate("a", 0.0)]).reason == "a is champion with 0.00% top-1 on val"
