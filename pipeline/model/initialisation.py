"""Networks that are built to be filled from a file: random weights to begin with would be thrown away."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

_WHOLE = (init.normal_, init.uniform_, init.kaiming_uniform_)
"""The functions of `torch.nn.init` that a mode sees as a whole; the others it sees draw."""


class NoRandomWeights(TorchFunctionMode):
    """Within the block weights are constants where they would be random, which takes a second for VGG.

    Everything else is as always, such as buffers that are computed and not stored. All weights must be loaded next:
    `load_state_dict` checks that none is missing. The global RNG is not used.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        del types
        given = kwargs or {}
        if func == Tensor.normal_:  # its mean, as `trunc_normal_` draws again until all values are within its bounds
            return args[0].fill_(args[1] if len(args) > 1 else given.get("mean", 0.0))
        if func == Tensor.uniform_:
            return args[0].zero_()
        if func in _WHOLE:
            tensor: Tensor = args[0] if args else given["tensor"]
            return tensor.detach().zero_()
        return func(*args, **given)
