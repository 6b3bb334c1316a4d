"""`topwork finetune` beside plain Keras and plain PyTorch. Read `side_by_side` first."""
