"""What stands under the Cannon: the space of labels, design vectors and quadratic forms, the training of pixels."""
