"""Pretrained weights of the image encoder; the shipped files and their model cards are in this folder."""
