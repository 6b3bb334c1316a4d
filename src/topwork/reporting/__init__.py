"""One page that tells how good a classifier is, where it errs, and what is odd about its photos."""
