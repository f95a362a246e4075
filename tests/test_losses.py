"""Losses: sums with counts, against the formula by hand."""

import math

import pytest
import torch

from llm.losses import IGNORED, Tally, classes, next_token, preference, sequence_logprobs, worked_out
from llm.runs import perplexity


def test_next_token_is_minus_log_of_the_softmax():
    logits = torch.tensor([[[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]])
    tally = next_token(logits, torch.tensor([[2, 0]]))
    by_hand = -math.log(math.exp(3) / (math.exp(1) + math.exp(2) + math.exp(3))) + math.log(3)
    assert float(tally.total) == pytest.approx(by_hand, abs=1e-6)
    assert tally.count == 2


def test_ignored_targets_count_for_nothing():
    logits = torch.randn(1, 4, 7)
    some = next_token(logits, torch.tensor([[3, IGNORED, 5, IGNORED]]))
    only = next_token(logits[:, [0, 2]], torch.tensor([[3, 5]]))
    assert some.count == only.count == 2
    assert float(some.total) == pytest.approx(float(only.total), abs=1e-6)


def test_a_mean_over_unequal_parts_is_not_a_mean_of_means():
    # 6 targets with a mean of 0.5 and 4 with a mean of 2.0: (6 * 0.5 + 4 * 2.0) / 10 = 1.1, not 1.25
    both = Tally(torch.tensor(3.0), 6) + Tally(torch.tensor(8.0), 4)
    assert both.mean == pytest.approx(1.1)


def test_nothing_counted_is_not_a_loss_of_zero():
    assert math.isnan(Tally(torch.tensor(0.0), 0).mean)


def test_one_position_worked_out_agrees_with_the_loss():
    logits = torch.tensor([0.5, -1.0, 2.0, 0.0])
    shown = worked_out(logits, 1, top=2)
    assert shown["loss"] == pytest.approx(
        float(next_token(logits[None, None], torch.tensor([[1]])).total), abs=1e-6
    )
    assert shown["loss"] == pytest.approx(-math.log(shown["probability"]), abs=1e-6)
    assert shown["loss"] == pytest.approx(shown["log_sum_exp"] - shown["logit"], abs=1e-6)
    assert [row["id"] for row in shown["top"]] == [2, 0]
    assert sum(row["probability"] for row in worked_out(logits, 1, top=4)["top"]) == pytest.approx(1)


def test_perplexity_is_exp_and_infinite_where_exp_ends():
    assert perplexity(0.0) == 1
    assert perplexity(math.log(50257)) == pytest.approx(50257)
    assert perplexity(709.0) == pytest.approx(math.exp(709))
    assert perplexity(750.0) == math.inf
    assert perplexity(None) is None and perplexity(math.nan) is None


# --- classes, and pairs of answers -----------------------------------------------------------------------------------


def test_classes_are_a_softmax_over_their_scores():
    tally = classes(torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 3.0]]), torch.tensor([0, 2]))
    by_hand = -math.log(math.exp(1) / (math.exp(1) + math.exp(2) + 1)) - math.log(
        math.exp(3) / (2 + math.exp(3))
    )
    assert float(tally.total) == pytest.approx(by_hand, abs=1e-6)
    assert tally.count == 2 and float(tally.sums["accuracy"]) == 1


def test_a_texts_logprob_is_the_sum_over_its_targets():
    logits = torch.randn(2, 3, 5)
    targets = torch.tensor([[4, IGNORED, 1], [IGNORED, IGNORED, 2]])
    logs = logits.log_softmax(-1)
    wanted = [float(logs[0, 0, 4] + logs[0, 2, 1]), float(logs[1, 2, 2])]
    assert sequence_logprobs(logits, targets).tolist() == pytest.approx(wanted, abs=1e-6)
    assert -float(next_token(logits, targets).total) == pytest.approx(sum(wanted), abs=1e-5)


# log pi of chosen and rejected under policy and reference, beta; rewards and loss worked out with a calculator:
# -12 and -20 against -14 and -18 at 0.1: rewards 0.2 and -0.2, -ln sigmoid(0.4) = ln(1 + e^-0.4) = 0.513015
PAIRS = [
    ((-12, -20), (-14, -18), 0.1, 0.2, -0.2, 0.513015),
    ((-7, -9), (-7, -9), 0.5, 0.0, 0.0, math.log(2)),  # the policy is the reference: the first step
    ((-10, -10), (-8, -14), 0.5, -1.0, 2.0, 3.048587),  # ln(1 + e^3)
    ((-3, -400), (-3, -4), 1.0, 0.0, -396.0, 0.0),  # far apart, and yet a finite loss
]


def pair(policy, reference):
    return torch.tensor([policy], dtype=torch.float32), torch.tensor([reference], dtype=torch.float32)


@pytest.mark.parametrize(("policy", "reference", "beta", "chosen", "rejected", "loss"), PAIRS)
def test_dpo_by_hand(policy, reference, beta, chosen, rejected, loss):
    tally = preference(*pair(policy, reference), torch.ones(1, 2), beta)
    assert float(tally.sums["reward_chosen"]) == pytest.approx(chosen, abs=1e-5)
    assert float(tally.sums["reward_rejected"]) == pytest.approx(rejected, abs=1e-4)
    assert float(tally.sums["reward_margin"]) == pytest.approx(chosen - rejected, abs=1e-4)
    assert float(tally.sums["reward_accuracy"]) == (chosen > rejected)
    assert float(tally.total) == pytest.approx(loss, abs=1e-6) and tally.count == 1


def test_pairs_are_summed():
    sides = [torch.tensor([row[i] for row in PAIRS[:3:2]], dtype=torch.float32) for i in (0, 1)]
    one = preference(*sides, torch.ones(2, 2), 0.5)
    each = [preference(*pair(*row[:2]), torch.ones(1, 2), 0.5) for row in PAIRS[:3:2]]
    assert float(one.total) == pytest.approx(sum(float(t.total) for t in each), abs=1e-6) and one.count == 2
    both = each[0] + each[1]
    assert {n: float(v) for n, v in both.sums.items()} == pytest.approx(
        {n: float(v) for n, v in one.sums.items()}
    )


def test_smoothing_takes_a_share_of_pairs_for_the_wrong_way_round():
    right, wrong = (
        preference(*pair(*row), torch.ones(1, 2), 0.1) for row in (PAIRS[0][:2], ((-20, -12), (-18, -14)))
    )
    smooth = preference(*pair(*PAIRS[0][:2]), torch.ones(1, 2), 0.1, label_smoothing=0.2)
    assert float(smooth.total) == pytest.approx(0.8 * float(right.total) + 0.2 * float(wrong.total), abs=1e-6)


def test_ipo_is_a_square_around_half_of_one_over_beta():
    # ratios 2 and -2 over 4 and 2 tokens are 0.5 and -1 a token: (1.5 - 1 / 0.4)^2 = 1; where they differ by 2.5, 0
    policy, reference = pair((-12, -20), (-14, -18))
    assert float(preference(policy, reference, torch.tensor([[4, 2]]), 0.2, "ipo").total) == pytest.approx(1)
    policy, reference = pair((-9, -20), (-14, -20))
    assert float(preference(policy, reference, torch.tensor([[2, 2]]), 0.2, "ipo").total) == pytest.approx(0)
