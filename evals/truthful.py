"""What multiple choice with several true answers counts; called by lm-evaluation-harness."""

from math import exp


def share_of_the_true(doc, results):
    """Of the likelihood of all answers, that of the true ones, 0 to 1."""
    logs = [log for log, _ in results]
    # Against the likeliest, or long answers would all be 0.
    weights = [exp(log - max(logs)) for log in logs]
    labels = doc["mc2_targets"]["labels"]
    true = sum(weight for weight, label in zip(weights, labels, strict=True) if label)
    return {"acc": true / sum(weights)}
