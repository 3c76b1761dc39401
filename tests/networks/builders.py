"""Descriptions of models, made up."""

from cclnet.networks.model_description import ModelDescription

BACKBONE = "shufflenet_v2_x0_5"  # the smallest that torchvision has


def description(method: str = "ccl") -> ModelDescription:
    return ModelDescription(
        classes=["MEL", "NV", "BCC"],
        backbone=BACKBONE,
        method=method,
        short_side=48,
        crop=32,
        mean=[0.485, 0.456, 0.406],
        standard_deviation=[0.229, 0.224, 0.225],
        label_matrix=[[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.1, 0.3, 0.6]],
        softness=1.6 / 3,
        softness_epoch=3 if method == "ccl" else None,
        lowest_softness_epoch=3 if method == "ccl" else None,
        converged_epoch=None,
        params={"lr_ccl": 0.0005, "milestones": [0.7, 0.9], "head": {"margin": 2.0, "temperature": 1.0}},
        ran_on={"threads": 2},
        version="0.1.0",
    )
