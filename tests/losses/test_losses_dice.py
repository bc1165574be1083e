"""The Dice family's modules and sums of losses."""

import pytest
import torch
from monai.losses import DiceCELoss, DiceLoss
from two_processes import run_in_two_processes

import labeldrop_bench as lb
from labeldrop_bench import ops

DICE = ["dice", "adaptive_dice", "marginal_dice", "exclusion_dice", "leaf_dice"]
BACKENDS = ["fused", "reference"]


def example(num_classes=4, samples=3, channels=None):
    torch.manual_seed(0)
    logits = torch.randn(samples, channels or num_classes, 6, 7, dtype=torch.float64)
    target = torch.randint(0, num_classes, (samples, 6, 7))
    annotated = torch.ones(samples, num_classes, dtype=torch.bool)
    annotated[1, 2] = annotated[2, 1] = False
    return logits.requires_grad_(), target, annotated


def by_hand(probabilities, positive, counted, squared=False):
    """[N, K] from [N, K, *spatial]: 1 - (2 I + eps) / (P + T + eps)."""
    positive, counted = positive.double(), counted.double()
    p = probabilities.flatten(2)
    overlap = (p * (positive * counted).flatten(2)).sum(2)
    total = (p ** (2 if squared else 1) * counted.flatten(2)).sum(2) + (positive * counted).flatten(2).sum(2)
    return 1 - (2 * overlap + 1e-5) / (total + 1e-5)


def one_hot(target, num_classes=4):
    return torch.nn.functional.one_hot(target, num_classes).movedim(-1, 1).bool()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("include_background", [False, True])
def test_dice_is_monais(backend, batch, squared, include_background):
    logits, target, _ = example()
    # MONAI adds its smoothing to both sums, as we do
    peer = DiceLoss(
        softmax=True, to_onehot_y=True, batch=batch, squared_pred=squared, include_background=include_background
    )
    loss = lb.Dice(4, batch=batch, squared=squared, include_background=include_background, backend=backend)
    values = [loss(logits, target), peer(logits, target.unsqueeze(1))]
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*(torch.autograd.grad(value, logits)[0] for value in values))


def test_ce_plus_dice_is_monais():
    logits, target, _ = example()
    values = [
        lb.losses.create("ce+dice", num_classes=4, weights=[0.7, 1.3])(logits, target),
        DiceCELoss(softmax=True, to_onehot_y=True, lambda_ce=0.7, lambda_dice=1.3)(logits, target.unsqueeze(1)),
    ]
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*(torch.autograd.grad(value, logits)[0] for value in values))


@pytest.mark.parametrize("backend", BACKENDS)
def test_adaptive_dice_shares_the_probability_among_covered_classes(backend):
    logits, target, annotated = example()
    drawn = lb.drop_labels(target, annotated)
    covered = annotated[:, :, None, None].expand_as(logits)
    probabilities = logits.masked_fill(~covered, -torch.inf).softmax(1)
    values = by_hand(probabilities, one_hot(drawn), covered)
    expected = values[annotated].mean()
    torch.testing.assert_close(lb.AdaptiveDice(4, backend=backend)(logits, target, annotated), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_marginal_dice_adds_missing_probability_to_background(backend):
    logits, target, annotated = example()
    drawn = lb.drop_labels(target, annotated)
    covered = annotated[:, :, None, None].expand_as(logits)
    p = logits.softmax(1)
    background = p[:, :1] + (p * ~covered).sum(1, keepdim=True)
    values = by_hand(torch.cat([background, p[:, 1:]], dim=1), one_hot(drawn), covered)
    expected = values[annotated].mean()
    torch.testing.assert_close(lb.MarginalDice(4, backend=backend)(logits, target, annotated), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_exclusion_dice_is_the_overlap_with_where_a_class_is_not(backend):
    logits, target, annotated = example()
    drawn = lb.drop_labels(target, annotated)
    covered = annotated[:, :, None, None].expand_as(logits)
    certainly_not = torch.where(covered, ~one_hot(drawn), (drawn > 0).unsqueeze(1).expand_as(covered))
    p, e = logits.softmax(1).flatten(2), certainly_not.double().flatten(2)
    expected = (2 * (p * e).sum(2) / (p.sum(2) + e.sum(2) + 1e-5)).mean()
    torch.testing.assert_close(lb.ExclusionDice(4, backend=backend)(logits, target, annotated), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_leaf_dice_counts_single_classes_only(backend):
    logits, target, annotated = example()
    drawn = lb.drop_labels(target, annotated)
    missing_any = ~annotated.all(1)
    positive = one_hot(drawn)
    positive[missing_any, 0] = False  # background may be the missing class there
    included = annotated.clone()
    included[missing_any, 0] = False
    values = by_hand(logits.softmax(1), positive, torch.ones_like(positive), squared=True)
    torch.testing.assert_close(lb.LeafDice(4, backend=backend)(logits, target, annotated), values[included].mean())


@pytest.mark.parametrize("backend", BACKENDS)
def test_sigmoid_dice(backend):
    logits, target, annotated = example(channels=3)
    drawn = lb.drop_labels(target, annotated)
    loss = lb.AdaptiveDice(4, activation="sigmoid", backend=backend)
    covered = annotated[:, 1:, None, None].expand_as(logits)
    values = by_hand(logits.sigmoid(), one_hot(drawn)[:, 1:], covered)
    torch.testing.assert_close(loss(logits, target, annotated), values[annotated[:, 1:]].mean())


@pytest.mark.parametrize("name", DICE)
def test_a_class_that_no_sample_covers_contributes_nothing(name):
    """Not to the value and not to the mean's divisor; here class 3 is nowhere drawn and class 1 in one sample."""
    logits, target, annotated = example()
    annotated[:, 3] = False
    each = lb.losses.create(name, num_classes=4, reduction="none")(logits, target, annotated)
    assert each.shape == (3, 4)
    mean = lb.losses.create(name, num_classes=4)(logits, target, annotated)
    included = lb.losses.create(name, num_classes=4).table(annotated).included
    assert included[:, 3].any() == (name in ("dice", "exclusion_dice"))
    assert (each[~included] == 0).all()
    torch.testing.assert_close(mean, each[included].mean())
    total = lb.losses.create(name, num_classes=4, reduction="sum")(logits, target, annotated)
    torch.testing.assert_close(total, each.sum())
    batch = lb.losses.create(name, num_classes=4, reduction="none", batch=True)(logits, target, annotated)
    assert batch.shape == (1, 4)


@pytest.mark.parametrize("name", DICE)
def test_batch_dice_of_one_sample_is_its_dice(name):
    logits, target, annotated = example(samples=3)
    one = (logits[1:2], target[1:2], annotated[1:2])
    values = [lb.losses.create(name, num_classes=4, batch=batch)(*one) for batch in (False, True)]
    torch.testing.assert_close(*values)


# ---- sums of losses ----


@pytest.mark.parametrize(
    "names", [("marginal_ce", "marginal_dice"), ("adaptive_ce", "adaptive_dice"), ("ce", "leaf_dice")]
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sum_is_the_sum_of_its_terms(names, backend, monkeypatch):
    logits, target, annotated = example()
    options = {"num_classes": 4, "backend": backend}
    separate = [lb.losses.create(name, **options)(logits, target, annotated) for name in names]
    expected = 0.5 * separate[0] + 2 * separate[1]
    (expected_gradient,) = torch.autograd.grad(expected, logits)
    together = lb.losses.create("+".join(names), weights=[0.5, 2.0], **options)
    if backend == "fused":  # one operator does it all
        monkeypatch.setattr(ops, "set_cross_entropy", None)
    value = together(logits, target, annotated)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(torch.autograd.grad(value, logits)[0], expected_gradient)


def test_terms_that_share_nothing_are_added():
    logits, target, annotated = example()
    for name in ("adaptive_ce+marginal_dice", "marginal_ce+marginal_dice+exclusion_dice", "dice+leaf_dice"):
        separate = [lb.losses.create(term, num_classes=4)(logits, target, annotated) for term in name.split("+")]
        value = lb.losses.create(name, num_classes=4)(logits, target, annotated)
        torch.testing.assert_close(value, sum(separate))
    logits, target, annotated = example(channels=3)
    value = lb.losses.create("smile+adaptive_dice", num_classes=4, activation="sigmoid")(logits, target, annotated)
    assert value > 0


def test_options_reach_the_terms_that_know_them():
    loss = lb.losses.create("ce+dice", num_classes=4, batch=True, class_weights=[1, 2, 3, 4])
    cross_entropy, dice = loss.terms
    assert dice.batch
    assert cross_entropy.class_weights.tolist() == [1, 2, 3, 4]
    logits, target, annotated = example()
    expected = cross_entropy(logits, target, annotated) + dice(logits, target, annotated)
    torch.testing.assert_close(loss(logits, target, annotated), expected)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ce+dise", {}, "there is no loss 'dise'; did you mean 'dice'"),
        ("ce+dice", {"weights": [1.0]}, "weights must be 2 numbers, one for each term, got 1"),
        ("ce+dice", {"weights": [1.0, float("nan")]}, "weights must be finite, got"),
        (
            "ce+smile",
            {},
            "terms must read the same channels in the same way, got CrossEntropy: 4 softmax, Smile: 3 sig",
        ),
        ("ce+dice", {"reduction": "none"}, "reduction must be 'mean' or 'sum', got 'none'"),
        (
            "ce",
            {"weights": [1.0]},
            r"weights are for a sum of losses, got \[1.0\] with 'ce'; for classes there is class_weights",
        ),
        ("dice", {"activation": "tanh"}, r"activation must be one of \['sigmoid', 'softmax'\], got 'tanh'"),
    ],
)
def test_bad_options_are_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        lb.losses.create(name, num_classes=4, **options)


def test_terms_of_a_sum_are_losses():
    for terms in ([], ["ce", "dice"]):
        with pytest.raises(TypeError, match=r"SumOfLosses: terms must be losses, at least one, got \["):
            lb.SumOfLosses(terms)


_DDP = f"""
network = torch.nn.Conv2d(1, 4, 3, padding=1)
image, target = torch.randn(4, 1, 8, 8), torch.randint(0, 4, (4, 8, 8))
# four and two classes annotated in the samples of the one process, two in those of the other
annotated = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 1], [1, 1, 0, 0], [1, 0, 1, 0]]).bool()
join()
parallel = DistributedDataParallel(network)
for name in {[*DICE, "marginal_ce+marginal_dice"]}:
    for options in ({{}}, {{"batch": True}}, {{"reduction": "sum"}}, {{"class_weights": [1, 2, 0.5, 3]}}):
        if "+" in name and len(options) and "batch" not in options:
            continue  # the cross-entropy would be summed, or divided by weights, of one process
        one = lb.losses.create(name, num_classes=4, **options)
        both = lb.losses.create(name, num_classes=4, process_group=dist.group.WORLD, **options)
        alone = one(network(image), target, annotated)
        expected = torch.autograd.grad(alone, list(network.parameters()))
        value = both(parallel(image[mine]), target[mine], annotated[mine])
        value.backward()
        if "+" not in name:  # a cross-entropy's value is that of its own process
            torch.testing.assert_close(value, alone)
        torch.testing.assert_close([p.grad for p in network.parameters()], list(expected))
        network.zero_grad()
if rank == 0:  # an evaluation on one process
    with torch.no_grad():
        for batch in (False, True):
            loss = lb.MarginalDice(4, batch=batch)
            assert loss(network(image), target, annotated).isfinite()
"""


@pytest.mark.slow
def test_a_process_group_makes_one_batch_of_all(tmp_path):
    """Without it a process is alone, so that one can evaluate while the other does not."""
    run_in_two_processes(_DDP, tmp_path)
