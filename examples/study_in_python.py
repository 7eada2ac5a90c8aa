"""A study in Python: a probe against fine-tuning on scikit-learn's digits, with a report. About twenty seconds on two cores."""

from __future__ import annotations

import sys

import phoropter as ph

study = ph.Study(
    name="probe-or-all",
    data=ph.digits(size=32, max_samples=400),
    candidates=[
        ph.finetune("test_resnet", weights="random", name="fine-tuned"),
        ph.probe("test_resnet", weights="random", name="probe", recipe={"preset": "probe", "lr": 0.1}),
    ],
    recipe={"preset": "scratch", "epochs": 4, "lr": 0.003},
    protocol=ph.KFold(3, seeds=[0]),
)

if __name__ == "__main__":
    out = sys.argv[1] if len(sys.argv) > 1 else "runs/probe-or-all"
    results = study.run(out, device="cpu", quiet=True)
    print(results.to_dataframe().groupby("candidate")["accuracy"].agg(["mean", "std"]).round(3))
    print("report:", results.report())
