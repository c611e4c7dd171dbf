"""What runs the methods: devices, training data, the training loop, inference."""
