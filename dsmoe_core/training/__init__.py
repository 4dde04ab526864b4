"""Components of the training loop in ``train.py``; none of them depends on the loop."""
