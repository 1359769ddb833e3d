"""Predictions: the predictor, the inference protocol's messages, the prediction log, batch prediction."""
