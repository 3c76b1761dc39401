"""CCLLoss in the Trainer of Hugging Face's transformers, on scikit-learn's handwritten digits; less than a minute.

    pip install transformers accelerate
    python examples/hugging_face_digits.py FOLDER 8     # eight epochs; goes on where FOLDER/checkpoint-* ended
    torchrun --nproc-per-node=2 examples/hugging_face_digits.py FOLDER 8

The model contains the criterion: so the Trainer moves, wraps, saves and loads it, and it needs no code for that.
"""

import sys
from pathlib import Path
from typing import Any

from digits import digit_tensors, show
from torch import Tensor, nn
from torch.optim import AdamW
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import EvalPrediction, get_last_checkpoint, set_seed

from cclnet import CCLLoss


class WithCriterion(nn.Module):
    """A model for image classification and its criterion: pixels and labels → loss, logits."""

    def __init__(self, classification: ResNetForImageClassification, num_features: int) -> None:
        super().__init__()
        self.classification = classification
        self.criterion = CCLLoss(num_features, classification.config.num_labels, patience=3)

    def forward(self, pixel_values: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        features = self.classification.resnet(pixel_values).pooler_output.flatten(1)
        logits = self.classification.classifier(features)
        return self.criterion(features, logits, labels), logits


class CCLTrainer(Trainer):
    """Takes loss and logits from ``WithCriterion``."""

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, **_: Any) -> Any:
        loss, logits = model(**inputs)
        return (loss, {"logits": logits}) if return_outputs else loss


class EndEpoch(TrainerCallback):
    def on_epoch_end(self, *_: Any, model: WithCriterion, **__: Any) -> None:
        model.criterion.end_epoch()  # before the Trainer writes the epoch's checkpoint


def accuracy(predicted: EvalPrediction) -> dict[str, float]:
    return {"accuracy": (predicted.predictions.argmax(axis=1) == predicted.label_ids).mean()}


def main(folder: Path, epochs: int) -> nn.Module:
    """Train up to so many epochs, from the last checkpoint in the folder if there is one."""
    set_seed(0)
    config = ResNetConfig(num_channels=1, embedding_size=32, hidden_sizes=[32, 64], depths=[1, 1], num_labels=10)
    model = WithCriterion(ResNetForImageClassification(config), num_features=64)
    groups = [{"params": model.classification.parameters()}, {"params": model.criterion.parameters(), "lr": 0.003}]
    digits, held_out = ([{"pixel_values": x, "labels": y} for x, y in part] for part in digit_tensors())
    folder.mkdir(parents=True, exist_ok=True)
    trainer = CCLTrainer(
        model,
        TrainingArguments(
            str(folder),
            num_train_epochs=epochs,
            per_device_train_batch_size=32,
            dataloader_drop_last=True,  # a last batch of one image would be too small for batch normalization
            use_cpu=True,  # without a GPU two processes train together only if told so
            lr_scheduler_type="constant",
            save_strategy="epoch",
            ddp_find_unused_parameters=True,  # a frozen dictionary gets no gradient
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=digits,
        eval_dataset=held_out,
        compute_metrics=accuracy,
        callbacks=[EndEpoch()],
        optimizers=(AdamW(groups, lr=0.001), None),
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(folder)))
    found = trainer.evaluate()
    if trainer.is_world_process_zero():
        show(found["eval_accuracy"], model.criterion)
    return model


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
