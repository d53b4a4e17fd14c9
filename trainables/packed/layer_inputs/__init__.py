"""Keeps the layers' inputs of a training pass in host memory until its backward pass needs them."""
