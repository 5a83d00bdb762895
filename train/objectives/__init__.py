"""What a model is trained to predict, and at which noise levels."""
