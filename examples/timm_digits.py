"""CCLLoss with a model, an optimizer, a schedule and checkpoints of timm, on scikit-learn's handwritten digits.

    pip install "timm>=1.0.29"
    python examples/timm_digits.py FOLDER 8     # eight epochs; goes on where FOLDER/last.pth.tar ended
    torchrun --nproc-per-node=2 examples/timm_digits.py FOLDER 8

timm's own train.py needs ``CCLTask`` of this file, and in its ``main``::

    model.reset_classifier(0)
    n1 = model.head_hidden_size
    task = CCLTask(CCLNet(model, n1, args.num_classes), CCLLoss(n1, args.num_classes), device=device).to(device)
    optimizer = create_optimizer_v2(task, param_group_fn=CCLTask.groups, ...)  # instead of the model
    utils.unwrap_model(task.criterion).end_epoch()  # after train_one_epoch
"""

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from digits import digit_tensors, show
from timm import create_model
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.task import ClassificationTask, resume_task_checkpoint
from timm.utils import CheckpointSaver, init_distributed_device, is_primary, random_seed, unwrap_model
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from cclnet import CCLLoss, CCLNet


class CCLTask(ClassificationTask):
    """A ``CCLNet`` around a model of timm, and a ``CCLLoss``; timm's checkpoints keep both."""

    def groups(self) -> list[dict[str, Any]]:
        return [{"params": self.trainable_module.parameters()}, {"params": self.criterion.parameters(), "lr": 0.02}]

    def forward(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:
        features, output = self.trainable_module(input, with_features=True)
        return {"loss": self.criterion(features, output, target), "output": output}

    def prepare_distributed(self, device_ids: list[Any] | None = None, **options: Any) -> ClassificationTask:
        self.criterion = DistributedDataParallel(self.criterion, device_ids, find_unused_parameters=True)
        return super().prepare_distributed(device_ids, **options)

    def get_task_state(self, *_: Any, **__: Any) -> dict[str, Any]:
        return unwrap_model(self.criterion).state_dict()

    def load_task_state(self, state: dict[str, Any], *_: Any, **__: Any) -> None:
        unwrap_model(self.criterion).load_state_dict(state)


def main(folder: Path, epochs: int) -> CCLTask:
    args = Namespace(device="cpu")
    init_distributed_device(args)
    random_seed(0)
    backbone = create_model("test_resnet", in_chans=1, num_classes=0)
    n1 = backbone.head_hidden_size
    task = CCLTask(CCLNet(backbone, n1, num_classes=10), CCLLoss(n1, num_classes=10, patience=3))
    optimizer = create_optimizer_v2(task, "sgd", lr=0.05, param_group_fn=CCLTask.groups)
    schedule, _ = create_scheduler_v2(optimizer, "step", decay_epochs=6)
    last = folder / "last.pth.tar"
    start = resume_task_checkpoint(task, last, optimizer) if last.exists() else 0
    if args.distributed:
        task.prepare_distributed()
    folder.mkdir(parents=True, exist_ok=True)
    saver = CheckpointSaver(task, optimizer, checkpoint_dir=str(folder), max_history=1, task=task)
    digits, held_out = digit_tensors()
    sampler = DistributedSampler(digits, args.world_size, args.rank)
    for epoch in range(start, epochs):
        sampler.set_epoch(epoch)
        schedule.step(epoch)
        for images, labels in DataLoader(digits, batch_size=64, sampler=sampler, drop_last=True):
            task(images, labels)["loss"].backward()
            optimizer.step()
            optimizer.zero_grad()
        unwrap_model(task.criterion).end_epoch()
        if is_primary(args):
            saver.save_checkpoint(epoch)
    images, labels = held_out.tensors
    right = task.eval().get_eval_model()(images).argmax(dim=1) == labels
    if is_primary(args):
        show(right.float().mean().item(), unwrap_model(task.criterion))
    return task


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
