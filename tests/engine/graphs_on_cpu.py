"""torch.cuda.make_graphed_callables for machines without a GPU: the same memory, autograd and rules, without graphs."""

from __future__ import annotations

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten


class GraphsOnCpu:
    """Stands in for make_graphed_callables, and keeps what it was called with.

    As on a GPU, inputs, outputs and gradients of every pass lie in the same memory, the warm-up runs the module, and
    autocast's cache must be off.
    """

    def __init__(self):
        self.calls = []

    def __call__(self, module, sample_args, num_warmup_iters=3, allow_unused_input=False, pool=None):
        assert not (torch.is_autocast_enabled("cpu") and torch.is_autocast_cache_enabled())
        (static_input,) = sample_args
        self.calls.append((static_input, module.training, pool))
        for _ in range(num_warmup_iters):
            module(static_input)
        weights = [parameter for parameter in module.parameters() if parameter.requires_grad]
        original, autocast = module.forward, (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"))
        static = {"gradients": [torch.empty_like(weight) for weight in weights]}

        class Graphed(torch.autograd.Function):
            @staticmethod
            def forward(ctx, images, *weights):
                static_input.copy_(images)
                enabled, dtype = autocast
                with torch.enable_grad(), torch.autocast("cpu", dtype, enabled, cache_enabled=False):
                    static["live"], static["spec"] = tree_flatten(original(static_input))
                if "outputs" not in static:
                    static["outputs"] = [torch.empty_like(output) for output in static["live"]]
                for output, live in zip(static["outputs"], static["live"], strict=True):
                    output.copy_(live.detach())
                return tuple(output.detach() for output in static["outputs"])

            @staticmethod
            def backward(ctx, *gradients):
                found = torch.autograd.grad(static["live"], weights, gradients)
                for kept, gradient in zip(static["gradients"], found, strict=True):
                    kept.copy_(gradient)
                return None, *(gradient.detach() for gradient in static["gradients"])

        module.forward = lambda images: tree_unflatten(Graphed.apply(images, *weights), static["spec"])
        return module
