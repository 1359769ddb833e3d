"""The definitions of the project that the inference benchmark serves; copied into it."""

import millpond as mp

STRINGS, NUMBERS = ["city", "shop", "kind", "brand"], [f"n{index}" for index in range(10)]

visits = mp.Table("visits", source="visits.parquet", key="visit", time="visited_at")
few = mp.Table("few", source="few.parquet", key="visit", time="visited_at")
payments = mp.Table("payments", source="payments.parquet", key="payment", time="paid_at")
asked = mp.Table("asked", source="asked.parquet", key="question", time="asked_at")

account = mp.Entity("account", key="account")
habits = mp.Features(
    "habits",
    entity=account,
    source=payments,
    every="1h",
    payments_7d=mp.count(over="7d"),
    payments_30d=mp.count(over="30d"),
    **{f"x{index}": mp.latest(f"x{index}") for index in range(18)},
)

mixed, sampled = (  # what a person gets who chooses nothing, and the same with few of its answers logged
    mp.Model(
        name, task=mp.Classification(label="bought"), examples=visits, inputs=[*NUMBERS, *STRINGS, "member"], log=log
    )
    for name, log in (("mixed", mp.PredictionLog()), ("sampled", mp.PredictionLog(sample=0.01)))
)
neighbours = mp.Model(
    "neighbours",
    task=mp.Classification(label="bought"),
    examples=few,
    inputs=[*NUMBERS, "shop", "kind", "member"],
    estimator="sklearn.neighbors.KNeighborsClassifier",
)
keyed = mp.Model(
    "keyed",
    task=mp.Classification(label="late"),
    examples=asked,
    inputs=[habits],
    params={"n_estimators": 200, "num_leaves": 31, "random_state": 0},
    release=mp.Release(steps=(0.1, 1.0), every=None, rules=()),  # a canary that stays
)
