"""The whole recipe beside fastai's on the same work: `make bench`."""
