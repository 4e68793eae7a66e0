"""The focal loss against its formula in decimal numbers, and through autograd, opcheck, compile and export."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import pytest
import torch

from maskrcnn_benchmark.ops import sigmoid_focal_loss
from maskrcnn_benchmark.ops.sigmoid_focal_loss import (
    sigmoid_focal_loss_backward_reference,
    sigmoid_focal_loss_reference,
)
from tests.ops.inputs import DTYPES

FORWARD, BACKWARD = torch.ops.mrcnn.sigmoid_focal_loss, torch.ops.mrcnn.sigmoid_focal_loss_backward
GAMMAS = (2.0, 0.0, 0.5, 1.5)
ALPHA = 0.25


def random_case(rows, classes, *, dtype=torch.float32, spread=6.0, seed=0):
    """Logits [R, K], and targets with background, every class, and rows that are ignored."""
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(rows, classes, generator=generator) * spread).to(dtype)
    return logits, torch.randint(-2, classes + 1, (rows,), generator=generator)


def extremes():
    """Logits at which sigmoid, its logarithm, or powers of it leave float32."""
    values = [0.0, -0.0, 1e-9, 0.3, 12.0, 17.0, 40.0, 87.0, 88.5, 104.0, 1e4]
    logits = torch.tensor([values, [-value for value in values]]).repeat(14, 1)
    return logits, torch.arange(28) // 2 - 1


CASES = {
    "random": random_case(23, 7),
    "one_class": random_case(50, 1),
    "chunks": random_case(301, 80),  # more than one chunk, and rows that two of them share
    "wide": random_case(3, 5000),
    "all_ignored": (random_case(9, 4)[0], torch.full((9,), -1)),
    "all_background": (random_case(9, 4)[0], torch.zeros(9, dtype=torch.int64)),
    "beyond": (random_case(9, 4)[0], torch.full((9,), 5)),  # of no class: negative for all
    "extremes": extremes(),
    "no_rows": (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)),
    "no_classes": (torch.zeros(3, 0), torch.tensor([0, -1, 0])),
}


def by_formula(logits, targets, gamma, alpha):
    """The loss and its gradient [R, K], each value on its own in 60 decimal digits."""
    total, gradient = Decimal(0), torch.zeros(logits.shape, dtype=torch.float64)
    with localcontext(prec=60, Emin=-(10**9), Emax=10**9):
        exponent, weights = Decimal(gamma), {True: Decimal(alpha), False: 1 - Decimal(alpha)}
        for row, target in enumerate(targets.tolist()):
            for column, logit in enumerate(logits[row].tolist() if target >= 0 else ()):
                is_true = column + 1 == target
                margin = min(max(Decimal(logit if is_true else -logit), Decimal(-(10**6))), Decimal(10**6))
                wrong = 1 / (1 + margin.exp())
                penalty = (1 + (-margin).exp()).ln()  # -ln(1 - wrong), without cancelling
                power = wrong**exponent
                slope = -weights[is_true] * power * (exponent * (1 - wrong) * penalty + wrong)
                total += weights[is_true] * power * penalty
                gradient[row, column] = float(slope if is_true else -slope)
    return float(total), gradient


TOLERANCE = {torch.float64: 1e-12, torch.float32: 5e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
SMALL = ("random", "one_class", "beyond", "all_ignored", "all_background")


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SMALL)
def test_equals_the_formula(name, dtype, gamma):
    logits, targets = CASES[name]
    logits = logits.to(dtype)
    loss, gradient = by_formula(logits.double(), targets, gamma, ALPHA)
    functions = ((FORWARD, BACKWARD), (sigmoid_focal_loss_reference, sigmoid_focal_loss_backward_reference))
    for forward, backward in functions:
        output = forward(logits, targets, gamma, ALPHA)
        assert output.shape == ()
        assert output.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert output.item() == pytest.approx(loss, rel=1e-6)  # half logits are summed in float32 too
        result = backward(output.new_tensor(1.0), logits, targets, gamma, ALPHA)
        assert result.dtype == dtype
        torch.testing.assert_close(result.double(), gradient, rtol=TOLERANCE[dtype], atol=1e-7)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_extreme_logits_by_the_formula(gamma):
    logits, targets = CASES["extremes"]
    loss, gradient = by_formula(logits, targets, gamma, ALPHA)
    assert FORWARD(logits, targets, gamma, ALPHA).item() == pytest.approx(loss, rel=1e-6)
    result = BACKWARD(torch.tensor(1.0), logits, targets, gamma, ALPHA)
    torch.testing.assert_close(result.double(), gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("backward", [BACKWARD, sigmoid_focal_loss_backward_reference], ids=["op", "plain"])
def test_gradients_of_the_largest_logits_are_the_weights(backward):
    logits, targets = torch.tensor([[3e38, -3e38], [-3e38, 3e38]]), torch.tensor([1, 1])
    wanted = torch.tensor([[0, 0], [-ALPHA, 1 - ALPHA]])
    torch.testing.assert_close(backward(torch.tensor(1.0), logits, targets, 2.0, ALPHA), wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("name", CASES)
def test_the_op_equals_the_plain_kernel(name, gamma):
    logits, targets = CASES[name]
    wanted = sigmoid_focal_loss_reference(logits.double(), targets, gamma, ALPHA)
    torch.testing.assert_close(FORWARD(logits, targets, gamma, ALPHA).double(), wanted, rtol=1e-6, atol=1e-6)
    grad = torch.tensor(0.37)
    wanted = sigmoid_focal_loss_backward_reference(grad.double(), logits.double(), targets, gamma, ALPHA)
    result = BACKWARD(grad, logits, targets, gamma, ALPHA)
    torch.testing.assert_close(result.double(), wanted, rtol=1e-5, atol=1e-7)


def test_gradcheck():
    logits, targets = random_case(9, 5, dtype=torch.float64, spread=2.0)
    for gamma in GAMMAS:
        function = lambda x, gamma=gamma: sigmoid_focal_loss(x, targets, gamma=gamma, alpha=ALPHA)  # noqa: E731
        assert torch.autograd.gradcheck(function, (logits.requires_grad_(),))


@pytest.mark.parametrize("dtype", DTYPES)
def test_opcheck(dtype):
    logits, targets = random_case(11, 4, dtype=dtype)
    grad = torch.tensor(0.5, dtype=FORWARD(logits, targets, 2.0, ALPHA).dtype)
    torch.library.opcheck(FORWARD.default, (logits.requires_grad_(), targets, 2.0, ALPHA))
    torch.library.opcheck(BACKWARD.default, (grad, logits.detach(), targets, 2.0, ALPHA))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_one_and_two_threads_agree_bit_for_bit(threads, without_extension, dtype):
    if without_extension:
        pytest.skip(
            "needs the compiled kernels: PyTorch's functions differ in the last bit where a thread's share ends"
        )
    logits, targets = random_case(1201, 80, dtype=dtype)
    results = []
    for count in (1, 2):
        threads(count)
        results.append((FORWARD(logits, targets, 2.0, ALPHA), BACKWARD(torch.tensor(3.0), logits, targets, 2.0, ALPHA)))
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("backward", [BACKWARD, sigmoid_focal_loss_backward_reference], ids=["op", "plain"])
def test_what_is_no_number_shows(backward):
    logits, targets = torch.zeros(3, 4), torch.tensor([1, 0, -1])
    logits[0, 1] = logits[2, 0] = math.nan
    assert torch.isnan(sigmoid_focal_loss(logits, targets, gamma=2, alpha=ALPHA))
    result = backward(torch.tensor(1.0), logits, targets, 2.0, ALPHA)
    assert result.isnan().nonzero().tolist() == [[0, 1]]  # an ignored row stays out


def test_views_and_narrow_integers():
    logits, targets = random_case(40, 6)
    wanted = sigmoid_focal_loss(logits, targets, gamma=2, alpha=ALPHA)
    strided = logits.t().contiguous().t().requires_grad_()
    loss = sigmoid_focal_loss(strided, targets.int(), gamma=2, alpha=ALPHA)
    loss.backward()
    assert torch.equal(loss.detach(), wanted)
    assert torch.equal(strided.grad, BACKWARD(torch.tensor(1.0), logits, targets, 2.0, ALPHA))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_without_graph_breaks(dynamic):
    function = lambda x, t: sigmoid_focal_loss(x * 2, t, gamma=2.0, alpha=ALPHA) / 3  # noqa: E731
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for rows in (12, 17):
        logits, targets = random_case(rows, 5, seed=rows)
        results = []
        for call in (function, compiled):
            leaf = logits.clone().requires_grad_()
            call(leaf, targets).backward()
            results.append(leaf.grad)
        assert torch.equal(*results)


def test_faults_name_the_argument():
    logits, targets = random_case(6, 3)
    for function in (FORWARD, sigmoid_focal_loss_reference):
        with pytest.raises(ValueError, match=r"logits must have the shape \[R, K\]"):
            function(logits[0], targets, 2.0, ALPHA)
        with pytest.raises(ValueError, match=r"targets must have the shape \[6\]"):
            function(logits, targets[:5], 2.0, ALPHA)
        with pytest.raises(ValueError, match="gamma must be at least 0, got -1"):
            function(logits, targets, -1.0, ALPHA)
        with pytest.raises(TypeError, match="targets must be int64"):
            function(logits, targets.int(), 2.0, ALPHA)
        with pytest.raises(TypeError, match="float32"):
            function(logits.long(), targets, 2.0, ALPHA)
