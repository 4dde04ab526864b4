"""Label Studio, the ML backend, language models and FiftyOne, started and connected."""
