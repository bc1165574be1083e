"""The noise of predictive_variance: Philox words, and normal numbers from them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from labeldrop_bench.ops import _native
from labeldrop_bench.reference.philox import box_muller, key_words, normals, philox4x32

CPU = _native._MODULES["cpu"]
KEY = -1234567890123456789

# counter and key, and words after so many rounds: published with the authors' own implementation, Random123
_COUNTERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0"),
]
_AFTER_7 = [
    "5f6fb709 0d893f64 4f121f81 4f730a48",
    "5207ddc2 45165e59 4d8ee751 8c52f662",
    "4dfccaba 190a87f0 c47362ba b6b5242a",
]
_AFTER_10 = [
    "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    "408f276d 41c83b0e a20bc7c6 6d5451fd",
    "d16cfe09 94fdcceb 5001e420 24126ea1",
]
KNOWN_ANSWERS = [
    (rounds, *counter, words)
    for rounds, answers in ((7, _AFTER_7), (10, _AFTER_10))
    for counter, words in zip(_COUNTERS, answers, strict=True)
]


def compiled_normals(first, elements, groups, key):
    """[4 groups, elements] float32, as the kernels compute them."""
    out = torch.empty(4 * groups, elements)
    CPU.normals(out=out.data_ptr(), first=first, elements=elements, groups=groups, key=key % 2**64)
    return out


def expected_normals(first, elements, groups, key):
    """[4 groups, elements] float64."""
    e = torch.arange(first, first + elements)
    group = torch.arange(groups).unsqueeze(1)
    counter = torch.broadcast_tensors(e & 0xFFFFFFFF, e >> 32, group, torch.zeros_like(e))
    words = philox4x32(torch.stack(counter, dim=-1), key_words(torch.tensor([key])), rounds=7)
    return box_muller(words).movedim(-1, 1).reshape(-1, elements)


@pytest.mark.parametrize(("rounds", "counter", "key", "words"), KNOWN_ANSWERS)
def test_known_answers(rounds, counter, key, words):
    """The kernels' words after seven rounds show in their normal numbers alone."""
    counter, key, words = ([int(word, 16) for word in text.split()] for text in (counter, key, words))
    assert philox4x32(torch.tensor(counter), torch.tensor(key), rounds).tolist() == words
    if rounds == 10:
        assert list(CPU.philox4x32(counter, key)) == words


_WORDS = st.integers(0, 2**32 - 1)


@given(st.lists(_WORDS, min_size=4, max_size=4), st.lists(_WORDS, min_size=2, max_size=2))
def test_compiled_words_are_those_of_the_plain_version(counter, key):
    assert list(CPU.philox4x32(counter, key)) == philox4x32(torch.tensor(counter), torch.tensor(key)).tolist()


# 2^32: the element's low word overflows into the high one within a vector
@pytest.mark.parametrize("first", [0, 5, 2**32 - 1003, 2**40 + 1])
@pytest.mark.usefixtures("isa")
def test_every_instruction_set_has_the_same_normals(first):
    """The numbers reach 6.8 and have some ten float32 roundings in them: 1e-6 is 2 ulp of the largest."""
    for elements, groups in ((1, 1), (20_011, 3)):
        got, expected = (f(first, elements, groups, KEY) for f in (compiled_normals, expected_normals))
        assert float((got - expected).abs().max()) <= 1e-6


@pytest.mark.usefixtures("isa")
def test_small_normals_have_all_their_digits():
    """A radius near 0 comes from a word near 2^32, whose distance from there a float32 of the word has lost."""
    got, expected = (f(0, 500_000, 1, KEY)[:2] for f in (compiled_normals, expected_normals))
    smallest = expected.square().sum(dim=0).topk(50, largest=False).indices
    assert float(expected[:, smallest].abs().max()) < 0.02  # so that the test sees what it is about
    assert float((got[:, smallest] - expected[:, smallest]).abs().max()) <= 1e-8


def test_normals_of_a_tensor_are_numbered_in_its_contiguous_order():
    shape = (2, 3, 4, 5)
    expected = expected_normals(0, 120, 2, KEY)[:7].view(7, *shape)
    assert torch.equal(normals(torch.tensor([KEY]), 7, shape), expected)


# ---- distribution; the key is fixed, so that these either hold or do not ----


@pytest.fixture(scope="module")
def sample():
    """[40, 50 000]: 40 samples of each element."""
    return compiled_normals(0, 50_000, 10, KEY).double()


def test_moments(sample):
    """Of n normal numbers the mean has variance 1/n, the variance 2/n, skewness 6/n and kurtosis 24/n; 4 deviations."""
    for numbers in (sample.flatten(), *sample[:4]):  # all, and each of the four numbers of a counter by itself
        n = numbers.numel()
        assert abs(float(numbers.mean())) <= 4 * n**-0.5
        assert abs(float(numbers.var()) - 1) <= 4 * (2 / n) ** 0.5
        assert abs(float(stats.skew(numbers))) <= 4 * (6 / n) ** 0.5
        assert abs(float(stats.kurtosis(numbers))) <= 4 * (24 / n) ** 0.5


def test_distribution_is_normal(sample):
    assert stats.kstest(sample.flatten().numpy(), "norm").pvalue > 1e-3
    assert stats.kstest(sample[:, 0].numpy(), "norm").pvalue > 1e-3
    assert float(sample.abs().max()) > 4.5  # seven in a million are beyond; there are 2 million


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 16, 64])
def test_neighbours_are_independent(sample, lag):
    """The correlation of n independent pairs has variance 1/n, that of their squares too; 4 deviations."""
    along_elements = sample[:, :-lag].flatten(), sample[:, lag:].flatten()
    pairs = [along_elements]
    if lag < len(sample):
        pairs.append((sample[:-lag].flatten(), sample[lag:].flatten()))
    for a, b in pairs:
        for x, y in ((a, b), (a.square(), b.square())):
            correlation = float(torch.corrcoef(torch.stack([x, y]))[0, 1])
            assert abs(correlation) <= 4 * len(x) ** -0.5


def test_keys_that_differ_in_one_bit_give_unrelated_numbers():
    numbers = [compiled_normals(0, 100_000, 1, key).flatten() for key in (KEY, KEY ^ 1, KEY ^ (1 << 40))]
    correlations = torch.corrcoef(torch.stack(numbers)) - torch.eye(3)
    assert float(correlations.abs().max()) <= 4 * 400_000**-0.5
