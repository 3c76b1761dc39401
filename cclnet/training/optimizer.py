"""SGD as in the paper: step decay of the learning rates, gradient clipping."""

from collections.abc import Iterable, Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import SGD

from cclnet.params import TrainParams

LEARNING_RATE_DECAY = 0.1


def build_optimizer(parameters: Iterable[nn.Parameter], learning_rate: float, params: TrainParams) -> SGD:
    """SGD with the experiment's momentum and weight decay; the learning rate is that of the first epoch."""
    shared = params.optimizer
    return SGD(parameters, learning_rate, shared.momentum, weight_decay=shared.weight_decay, fused=True)


def set_learning_rate(optimizer: SGD, epoch: int, milestones: Sequence[int]) -> None:
    """Set the learning rate: that of the first epoch times 0.1 for every milestone before this epoch."""
    decay = LEARNING_RATE_DECAY ** sum(epoch > milestone for milestone in milestones)
    optimizer.param_groups[0]["lr"] = optimizer.defaults["lr"] * decay


def clip_and_step(optimizer: SGD, clip_norm: float) -> Float[Tensor, ""]:
    """Clip the gradients, update the parameters and reset the gradients; return the norm before clipping."""
    parameters = optimizer.param_groups[0]["params"]
    norm = get_total_norm(parameter.grad for parameter in parameters if parameter.grad is not None)
    if norm.is_cuda or norm > clip_norm:  # reading a value from a GPU would wait for it
        clip_grads_with_norm_(parameters, clip_norm, norm)
    optimizer.step()
    optimizer.zero_grad()
    return norm
