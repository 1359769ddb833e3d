"""From a training set to a judged candidate: splits, preprocessing, estimators, tuning, evaluation, gates, reports."""
