"""CCLLoss in Lightning, on scikit-learn's handwritten digits; less than a minute on one core.

    pip install lightning
    python examples/lightning_digits.py FOLDER 8     # eight epochs; goes on where FOLDER/last.ckpt ended
    torchrun --nproc-per-node=2 examples/lightning_digits.py FOLDER 8

The checkpoint needs nothing more: as a part of the module, the criterion brings its frozen dictionary and its count.
"""

import os
import sys
from pathlib import Path

from digits import digit_tensors, show
from lightning import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader, DistributedSampler

from cclnet import CCLLoss, CCLNet

PROCESSES = int(os.environ.get("WORLD_SIZE", "1"))  # torchrun sets it


class DigitClassifier(LightningModule):
    """A small network and the criterion, which has its own learning rate."""

    def __init__(self) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU()]
        backbone = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(64 * 4 * 4, 64), nn.ReLU())
        self.model = CCLNet(backbone, num_features=64, num_classes=10)
        self.criterion = CCLLoss(num_features=64, num_classes=10, patience=3)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        features, logits = self.model(images, with_features=True)
        return self.criterion(features, logits, labels)

    def on_train_epoch_end(self) -> None:
        self.criterion.end_epoch()

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        images, labels = batch
        self.log("accuracy", (self.model(images).argmax(dim=1) == labels).float().mean(), sync_dist=True)

    def configure_optimizers(self) -> Optimizer:
        groups = [{"params": self.model.parameters()}, {"params": self.criterion.parameters(), "lr": 0.02}]
        return SGD(groups, lr=0.05, momentum=0.9)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        digits, trainer = digit_tensors()[0], self.trainer
        # its order depends on the epoch alone, so that a resumed run sees the same batches
        sampler = DistributedSampler(digits, trainer.world_size, trainer.global_rank)
        return DataLoader(digits, batch_size=64, sampler=sampler, drop_last=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(digit_tensors()[1], batch_size=360)


def main(folder: Path, epochs: int) -> nn.Module:
    """Train up to so many epochs, from the last checkpoint in the folder if there is one."""
    seed_everything(0, verbose=False)
    module = DigitClassifier()
    trainer = Trainer(
        max_epochs=epochs,
        devices=PROCESSES if PROCESSES > 1 else "auto",
        strategy="ddp_find_unused_parameters_true" if PROCESSES > 1 else "auto",  # a frozen dictionary has no gradient
        callbacks=ModelCheckpoint(folder, save_last=True),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    last = folder / "last.ckpt"
    trainer.fit(module, ckpt_path=last if last.exists() else None)
    if trainer.is_global_zero:
        show(trainer.callback_metrics["accuracy"].item(), module.criterion)
    return module


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
