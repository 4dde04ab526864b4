"""The steps and predictions on other schedulers and machines: Dagster, Ray."""
