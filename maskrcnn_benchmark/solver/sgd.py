"""PyTorch's SGD without PyTorch's compiler."""

from __future__ import annotations

import inspect

import torch


class EagerSGD(torch.optim.SGD):
    """``torch.optim.SGD`` to the bit, which does not import ``torch._dynamo``.

    PyTorch wraps some methods of its optimisers to keep ``torch.compile`` out of them, and the wrappers import the
    compiler: that takes as long as importing torch itself, and 70 MiB of every process. Here the methods are called as
    they were written before that.
    """

    add_param_group = inspect.unwrap(torch.optim.SGD.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.SGD.zero_grad)
    state_dict = inspect.unwrap(torch.optim.SGD.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.SGD.load_state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))
