"""Takes host memory in pages of its own, which cards copy from and to by themselves."""
